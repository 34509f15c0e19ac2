// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	// ErrForeign means that another program made an object whose name enroll needs.
	ErrForeign = errors.New("exists and is not ours")

	// errAgain means that a step is half done, or that the cache is behind. The next
	// attempt does the rest.
	errAgain = errors.New("to be done again")
)

// raced reports whether each part of the error is a failed compare-and-swap, a failed creation of
// an object that exists already, or errAgain. A new attempt is then enough.
func raced(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !raced(err) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, errAgain)
}
