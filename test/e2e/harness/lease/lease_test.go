// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

func TestGiveBackFreesOnlyTheThiefsSlot(t *testing.T) {
	const slot = "lock.a"
	made := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: slot}}
	s := &space.Space{T: t, Namespace: "a", Client: fake.NewClientset(made)}
	holder := func() string {
		now, err := s.Client.CoordinationV1().Leases("a").Get(t.Context(), slot, metav1.GetOptions{})
		require.NoError(t, err)
		return space.IdentityOf(now)
	}
	lease.Steal(s, slot)
	assert.Equal(t, "thief", holder())
	lease.GiveBack(s, slot)
	assert.Empty(t, holder())

	lease.Write(s, slot, func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("pod_uid") })
	lease.GiveBack(s, slot)
	assert.Equal(t, "pod_uid", holder(), "the thief's lease expired, and a pod took the slot")
}
