// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// roles lists the Roles from the API server.
func (w *world) roles() []rbacv1.Role {
	w.t.Helper()
	var list rbacv1.RoleList
	require.NoError(w.t, w.server.List(w.t.Context(), &list, client.InNamespace(shop)))
	return list.Items
}

func TestManySlotsOfOneAccountNeedFewRoles(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	const many = 2*step.MaxSlotsPerRole + 1
	pod := gated("a", "till", locks(many))
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	granted := map[string]bool{}
	for _, role := range w.roles() {
		assert.Empty(t, validation.ValidateAnnotations(role.Annotations, field.NewPath("")), role.Name)
		for _, lease := range role.Rules[0].ResourceNames {
			granted[lease] = true
		}
		assert.Contains(t, w.bindings(), role.Name)
	}
	assert.Len(t, w.roles(), 3)
	assert.Len(t, granted, 2*many, "each slot has a next Lease")
	assert.Equal(t, 3, w.requests["create Role"])
	assert.Equal(t, 0, w.requests["update Role"])

	w.create(gated("b", "till", "lock.one,lock.two"))
	w.settle(r)
	assert.Equal(t, 1, w.requests["update Role"], "one write for two slots")

	// Each Role that names a slot shows that an agent may have held the slot. When enroll makes
	// the last slot's Lease again, enroll must consider all Roles of the account, and must not
	// free the slot.
	last := longLock(many - 1)
	w.holds(last, "a_1")
	w.vanish(last)
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease(last)))

	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.Len(t, w.roles(), 1)
	assert.Len(t, w.bindings(), 1)
	assert.Nil(t, w.lease(last))
	assert.NotNil(t, w.lease("lock.one"))
}

// crowd creates all Roles of an account. The first Role has the given number of free places, and the
// other Roles have none. Enroll sweeps the slots of these Roles after an hour.
func (w *world) crowd(account string, free int) {
	w.t.Helper()
	for n := range step.MaxRolesPerAccount {
		role, full := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: step.RoleName(account, n), Labels: map[string]string{api.ManagedLabel: managed},
		}}, map[string]step.Memory{}
		for i := range step.MaxSlotsPerRole - free {
			full["lock."+strconv.Itoa(n)+"."+strconv.Itoa(i)] = step.Memory{Seconds: 3600, UID: "u"}
		}
		free = 0
		require.NoError(w.t, remember(role, full))
		w.create(role)
	}
}

func TestTooManySlotsOfAccountCauseOneEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	w := newWorld(t)
	w.crowd("till", 0)
	w.create(gated("a", "till", "lock.more"))
	w.create(gated("b", "other", "lock.more"))
	r := w.process()
	again := w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "a TooManySlots: Slot lock.more waits: its service account claims more than 16000 slots")
	assert.Equal(t, withNext("lock.more"), w.role("other").Rules[0].ResourceNames)

	w.now = w.now.Add(again)
	w.settle(r)
	assert.Len(t, w.roles(), 2, "the other slots still take the room after their sweep")
	assert.Equal(t, withNext("lock.more"), w.role("till").Rules[0].ResourceNames)
}

// idle asserts that a further look of enroll, in which nothing has changed, sends no request.
func (w *world) idle(r *Reconciler) {
	w.t.Helper()
	clear(w.requests)
	_, err := r.Namespace(w.t.Context(), shop)
	require.NoError(w.t, err)
	assert.Empty(w.t, w.requests, "enroll sent a request, although nothing had changed")
}

func TestSlotsWithoutRoomCostNoLeasesOrRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
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
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	w := newWorld(t, worker("a", 3))
	w.crowd("till", 2)
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"0: 1/3", "1: 1/3"}, w.stamps())
	w.idle(r)
}

func TestSlotsShareTheLastRoomOfTheirAccount(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
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
	assert.Len(t, w.roles(), step.MaxRolesPerAccount, "enroll has swept no other slots yet")
	assert.Zero(t, all.behind, "the sweep of the deleted pod's slots makes room")
	assert.Empty(t, holder(w.lease("lock.2")))
	assert.Subset(t, w.role("till").Rules[0].ResourceNames, withNext("lock.0", "lock.1", "lock.2"))
}

// A Role that names a missing Lease shows that an agent may have held this Lease. So enroll makes
// the Lease again, even if no claimant has room.
func TestMissingLeaseOfRolesReturnsWithoutRoom(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
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
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
	w.idle(r)
	w.now = w.now.Add(w.settle(r))
	w.settle(r)
	assert.NotNil(t, w.role("other"), "the last record of the Lease stays")
	w.idle(r)
}
