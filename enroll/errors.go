// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	// ErrForeign means that an object has a name that enroll needs, although enroll did not make
	// the object.
	ErrForeign = errors.New("exists and is not ours: remove this object, because enroll needs its name")

	// errAgain means that a step is half done, or that the cache is stale. The next attempt does
	// the rest.
	errAgain = errors.New("to be done again")

	// errFinalizers means that somebody's finalizers keep an object that enroll has deleted. A new
	// attempt is not enough, so the attempts become rarer.
	errFinalizers = errors.New("finalizers keep the deleted object: remove them, because enroll needs its name")
)

// raced reports whether each part of the error is a failed compare-and-swap, a failed creation of
// an object that exists already, or errAgain. A new attempt is then enough.
func raced(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !raced(err) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, errAgain)
}

// A reconciliation has these steps. A metric has a label whose values are the names of the steps.
const (
	stepRead        = "read"
	stepSlots       = "slots"
	stepConditions  = "conditions"
	stepVariables   = "variables"
	stepPullSecrets = "pull-secrets"
	stepBindings    = "bindings"
	stepSweep       = "sweep"
	stepEvents      = "events"
	stepStamps      = "stamps"
)

var steps = []string{
	stepRead, stepSlots, stepConditions, stepVariables, stepPullSecrets, stepBindings, stepSweep, stepEvents, stepStamps,
}

// outcome has the errors of a reconciliation, and the steps that have failed.
type outcome struct {
	errs   []error
	failed map[string]bool
}

// add keeps the error of a step, unless the error is nil. If the step lost a race, the step does not
// count as failed, because the next attempt comes soon.
func (o *outcome) add(step string, err error) {
	if err == nil {
		return
	}
	o.errs = append(o.errs, err)
	if raced(err) {
		return
	}
	if o.failed == nil {
		o.failed = map[string]bool{}
	}
	o.failed[step] = true
}
