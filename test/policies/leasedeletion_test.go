// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	long := heldBy("web-0_1")
	long.Spec.LeaseDurationSeconds = new(int32(600))
	done := func(keys string) *coordinationv1.Lease {
		return free(api.OnceLease("migration"), map[string]string{api.DoneAnnotation: keys})
	}
	const clears = "\x1b[2J\x07"
	for refusal, old := range map[string]*coordinationv1.Lease{
		"SlotHeld: lock.a is held by web-0_1: without its Lease ":                    heldBy("web-0_1"),
		"SlotHeld: lock.a is held by a holder whose name is not printable: without ": heldBy("web-0_1" + clears),
		"SlotHeld: lock.a is held by web-0_1: without its Lease no other pod would know; delete the pod, or wait: a holder that is gone blocks the others for 600 seconds only; if that is too long, ": long,
		"WorkDone: once.migration has the done keys 1 2, whose work would run again; ":                                                                                                                 done("1 2"),
		"WorkDone: once.migration has the done keys that are not printable, whose work ":                                                                                                               done("1 " + clears),
		"BarrierOpen: barrier.run.1.0 has the record of an open barrier, ":                                                                                                                             free("barrier.run.1.0", map[string]string{api.OpenedAnnotation: clears}),
	} {
		refused := refusals(t, request{
			by: &user.DefaultInfo{Name: "person"}, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
			in: namespace(shop, true), old: old,
		})
		require.Len(t, refused, 1)
		assert.Contains(t, refused[0], "metaparticle-lease-deletion: "+refusal)
		assert.NotContains(t, refused[0], "\x1b")
		assert.Equal(t, old == long, strings.Contains(refused[0], "patch lease"), "nobody is told to write the duration that the Lease has")
	}
}

func TestFreeLeaseIsDeleted(t *testing.T) {
	held, done, open := lease("true"), lease("true"), lease("true")
	done.Name, done.Annotations, done.Spec.HolderIdentity = api.OnceLease("migration"), map[string]string{api.DoneAnnotation: "7"}, nil
	open.Name, open.Annotations, open.Spec.HolderIdentity = "barrier.run.1.0", map[string]string{api.OpenedAnnotation: "3"}, nil
	free := lease("true")
	free.Spec.HolderIdentity = nil
	ends := namespace(shop, true)
	ends.DeletionTimestamp = new(metav1.Now())
	person, collector := &user.DefaultInfo{Name: "person"}, &user.DefaultInfo{Name: "system:serviceaccount:kube-system:generic-garbage-collector"}
	for what, test := range map[string]struct {
		by      user.Info
		in      *corev1.Namespace
		old     *coordinationv1.Lease
		refused bool
	}{
		"a free one":                      {person, namespace(shop, true), free, false},
		"another elector's":               {person, namespace(shop, true), lease(""), false},
		"a held one with its namespace":   {person, ends, held, false},
		"a held one by enroll":            {webhookAccount, namespace(shop, true), held, false},
		"a done one by enroll":            {webhookAccount, namespace(shop, true), done, true},
		"a held one by the collector":     {collector, namespace(shop, true), held, true},
		"an open barrier, after its Job":  {collector, namespace(shop, true), open, false},
		"an open barrier, during its Job": {person, namespace(shop, true), open, true},
	} {
		refused := refusals(t, request{by: test.by, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: test.in, old: test.old})
		assert.Equal(t, test.refused, len(refused) > 0, "%s: %v", what, refused)
	}
}
