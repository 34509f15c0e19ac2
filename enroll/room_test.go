// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// idle asserts that a further look of enroll, in which nothing has changed, sends no request.
func (w *world) idle(r *Reconciler) {
	w.t.Helper()
	clear(w.requests)
	_, err := r.Namespace(w.t.Context(), shop)
	require.NoError(w.t, err)
	assert.Empty(w.t, w.requests, "enroll sent a request, although nothing had changed")
}

func TestSlotsWithoutRoomCostNoLeasesOrRequests(t *testing.T) {
	lock := map[string]string{api.LockAnnotation: "more-1"}
	for name, test := range map[string]struct {
		claimants []client.Object
		leases    []string
	}{
		"a pod with several slots":       {[]client.Object{gated("a", "till", "lock.more-1,lock.more-2,lock.more-3")}, nil},
		"a workload without pods":        {[]client.Object{deployment(lock, lock)}, nil},
		"a slot that two accounts claim": {[]client.Object{gated("a", "till", "lock.more-1"), gated("b", "other", "lock.more-1")}, withNext("lock.more-1")},
		"shards":                         {[]client.Object{worker("a", 3)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.claimants...)
			w.crowd("till", 0)
			r := w.process()
			all := reported(r)
			w.settle(r)
			leases, err := storeOf(r).leases(t.Context(), shop)
			require.NoError(t, err)
			assert.ElementsMatch(t, test.leases, slices.Collect(maps.Keys(leases)))
			assert.Positive(t, all.behind)
			require.NotEmpty(t, w.events)
			assert.Contains(t, w.events[0], "TooManySlots")
			w.idle(r)
		})
	}
}

func TestShardsWithRoomStartBesideShardsWithout(t *testing.T) {
	w := newWorld(t, worker("a", 3))
	w.crowd("till", 2)
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"0: 1/3", "1: 1/3"}, w.stamps())
	w.idle(r)
}

func TestSlotsShareTheLastRoomOfTheirAccount(t *testing.T) {
	first := gated("a", "till", "lock.a,lock.b")
	w := newWorld(t, first)
	w.crowd("till", 3)
	r := w.process()
	all := reported(r)
	w.settle(r)
	w.create(gated("b", "till", "lock.0,lock.1,lock.2"))
	w.settle(r)
	assert.Equal(t, 2, all.behind)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "b TooManySlots: Slot lock.1 waits")
	for slot, room := range map[string]bool{"lock.a": true, "lock.b": true, "lock.0": true, "lock.1": false, "lock.2": false} {
		assert.Equal(t, room, w.lease(slot) != nil, slot)
		assert.Equal(t, room, w.lease(api.NextLease(slot)) != nil, "the next Lease of %s", slot)
	}
	w.idle(r)

	w.remove(first)
	w.now = w.now.Add(w.settle(r))
	w.settle(r)
	assert.Len(t, w.roles(), maxRolesPerAccount, "enroll has swept no other slots yet")
	assert.Zero(t, all.behind, "the sweep of the deleted pod's slots makes room")
	assert.Empty(t, holder(w.lease("lock.2")))
	assert.Subset(t, w.role("till").Rules[0].ResourceNames, withNext("lock.0", "lock.1", "lock.2"))
}

// A Role that names a missing Lease shows that an agent may have held this Lease. So enroll makes
// the Lease again, even if no claimant has room.
func TestMissingLeaseOfRolesReturnsWithoutRoom(t *testing.T) {
	earlier := gated("b", "other", "lock.x")
	w := newWorld(t, earlier)
	w.crowd("till", 0)
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "b_1")
	w.remove(earlier)
	w.create(gated("a", "till", "lock.x"))
	w.vanish("lock.x")
	w.settle(r)
	assert.Equal(t, Unknown, holder(w.lease("lock.x")))
	w.idle(r)
	w.now = w.now.Add(w.settle(r))
	w.settle(r)
	assert.NotNil(t, w.role("other"), "the last record of the Lease stays")
	w.idle(r)
}
