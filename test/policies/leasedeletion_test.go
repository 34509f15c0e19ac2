// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// A terminal obeys the control characters of a refusal. So a refused deletion never shows the control
// characters that a pod has written into its Lease.
func TestRefusedDeletionShowsNoControlCharacters(t *testing.T) {
	free := func(name string, annotations map[string]string) *coordinationv1.Lease {
		l := lease("true")
		l.Name, l.Annotations, l.Spec.HolderIdentity = name, annotations, nil
		return l
	}
	heldBy := func(identity string) *coordinationv1.Lease {
		l := lease("true")
		l.Spec.HolderIdentity = new(identity)
		return l
	}
	done := func(keys string) *coordinationv1.Lease {
		return free(api.OnceLease("migration"), map[string]string{api.DoneAnnotation: keys})
	}
	const clears = "\x1b[2J\x07"
	for refusal, old := range map[string]*coordinationv1.Lease{
		"SlotHeld: lock.a is held by web-0_1: without its Lease ":                        heldBy("web-0_1"),
		"SlotHeld: lock.a is held by a holder whose name is not printable: without ":     heldBy("web-0_1" + clears),
		"WorkDone: once.migration has the done keys 1 2, whose work would run again; ":   done("1 2"),
		"WorkDone: once.migration has the done keys that are not printable, whose work ": done("1 " + clears),
		"BarrierOpen: barrier.run.1.0 has the record of an open barrier, ":               free("barrier.run.1.0", map[string]string{api.OpenedAnnotation: clears}),
	} {
		refused := refusals(t, request{
			by: &user.DefaultInfo{Name: "person"}, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
			in: namespace(shop, true), old: old,
		})
		require.Len(t, refused, 1)
		assert.Contains(t, refused[0], "metaparticle-lease-deletion: "+refusal)
		assert.NotContains(t, refused[0], "\x1b")
	}
}
