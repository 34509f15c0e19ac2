// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyconfigurations "k8s.io/client-go/applyconfigurations/coordination/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// The list of the programs that wrote each field would be half of a Lease's bytes. Server-side apply
// needs the list.
func TestLeaseOfAHolderListsNoWriters(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	a := app.Singleton("plain")
	app.Deploy(s, a)
	slot := lease.OfDeployment(a.Name)
	leases := s.Client.CoordinationV1().Leases(s.Namespace)
	read := func() *coordinationv1.Lease {
		now, err := leases.Get(s.Context(), slot, metav1.GetOptions{})
		require.NoError(t, err)
		return now
	}
	// renewed returns the Lease after two renewals that began after the call.
	renewed := func() *coordinationv1.Lease {
		before, now := read(), read()
		for range 2 {
			s.Await(space.StartTimeout, "a renewal", func() bool {
				now = read()
				return now.Spec.RenewTime.After(before.Spec.RenewTime.Time)
			})
			before = now
		}
		return now
	}
	_, err := leases.Patch(s.Context(), slot, types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/by":"a person"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	assert.Empty(t, renewed().ManagedFields)

	_, err = leases.Apply(s.Context(), applyconfigurations.Lease(slot, s.Namespace).WithAnnotations(map[string]string{"example.com/note": "kept"}),
		metav1.ApplyOptions{FieldManager: "gitops"})
	require.NoError(t, err)
	now := renewed()
	assert.Equal(t, "kept", now.Annotations["example.com/note"])
	applied := false
	for _, entry := range now.ManagedFields {
		applied = applied || entry.Manager == "gitops" && entry.Operation == metav1.ManagedFieldsOperationApply
	}
	assert.True(t, applied, "%v", now.ManagedFields)
}
