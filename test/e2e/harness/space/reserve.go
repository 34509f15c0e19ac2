// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reserve returns the space of a namespace that the test itself creates, under a fixed name. The
// function Reserve first removes a namespace of this name that an earlier test left.
func Reserve(t *testing.T, name string) *Space {
	t.Helper()
	s := open(t, name)
	namespaces := s.Client.CoreV1().Namespaces()
	_ = namespaces.Delete(t.Context(), name, metav1.DeleteOptions{}) // the wait below shows whether the namespace is gone
	s.Await(StartTimeout, "the end of an earlier namespace "+name, func() bool {
		_, err := namespaces.Get(t.Context(), name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return s
}
