// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

func TestPodMayAcquireNewLeaseWithoutDelay(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.settle(w.process())
	assert.Empty(t, holder(w.lease("lock.x")))
	assert.EqualValues(t, 30, *w.lease("lock.x").Spec.LeaseDurationSeconds)
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
}

func TestEnrollRecreatesLeaseWithLongestRememberedDuration(t *testing.T) {
	long := lasting(gated("a", "till", "lock.x"), "90s")
	w := newWorld(t, long, gated("b", "till", "lock.x"))
	w.settle(w.process())
	w.holds("lock.x", "a_1")
	// The pod that claimed 90 s was deleted by force, but its container may still run.
	w.remove(long)
	w.vanish("lock.x")
	w.settle(w.process())
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
	assert.EqualValues(t, 90, *w.lease("lock.x").Spec.LeaseDurationSeconds)
	assert.Equal(t, step.Memory{Seconds: 90, UID: string(w.lease("lock.x").UID)}, remembered(w.role("till"))["lock.x"])
}

// A person may make the Lease again that has vanished under a living pod, and before enroll does.
func TestEnrollFreesNoLeaseOfAPersonAndLetsItLastLongEnough(t *testing.T) {
	for name, vanished := range map[string]bool{"first claim": false, "vanished": true} {
		t.Run(name, func(t *testing.T) {
			pod := lasting(gated("a", "till", "lock.x"), "90s")
			w := newWorld(t)
			if vanished {
				w.create(pod)
				w.settle(w.process())
				w.holds("lock.x", "a_1")
				w.vanish("lock.x")
			}
			w.create(byPerson("lock.x", 30, w.now))
			if !vanished {
				w.create(pod)
			}
			r := w.process()
			w.settle(r)
			assert.Equal(t, api.UnknownPerson, holder(w.lease("lock.x")))
			assert.EqualValues(t, 90, *w.lease("lock.x").Spec.LeaseDurationSeconds)
			assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)

			w.holds("lock.x", "a_1")
			w.remove(pod)
			w.settle(r)
			w.now = w.now.Add(90 * time.Second)
			w.settle(r)
			assert.Nil(t, w.lease("lock.x"), "what pods have claimed is swept as ever")
		})
	}
}

func TestEnrollDoesNotWriteAHeldLease(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.settle(w.process())
	w.holds("lock.x", "a_1")
	version := w.lease("lock.x").ResourceVersion
	w.create(gated("b", "other", "lock.x"))
	w.settle(w.process())
	assert.Equal(t, version, w.lease("lock.x").ResourceVersion)
	assert.Equal(t, withNext("lock.x"), w.role("other").Rules[0].ResourceNames)
}

// In each iteration of a scenario, the process crashes at a different write. The world checks that
// enroll never frees a Lease that a Role has named.
func TestCrashOfEnrollNeverFreesAHeldLease(t *testing.T) {
	scenarios := map[string]struct {
		prepare func(*world)
		free    bool
	}{
		"first start": {prepare: func(*world) {}, free: true},
		"vanished Lease": {prepare: func(w *world) {
			w.settle(w.process())
			w.holds("lock.x", "a_1")
			w.vanish("lock.x")
		}},
		"vanished Lease and a new account": {prepare: func(w *world) {
			w.settle(w.process())
			w.holds("lock.x", "a_1")
			w.vanish("lock.x")
			w.create(gated("new", "newcomer", "lock.x"))
		}},
	}
	for name, s := range scenarios {
		for crash := 1; crash <= 8; crash++ {
			t.Run(fmt.Sprintf("%s, write %d", name, crash), func(t *testing.T) {
				w := newWorld(t, gated("a", "till", "lock.x"), gated("b", "other", "lock.x"))
				s.prepare(w)
				w.crashFrom(crash)
				_, _ = w.process().Namespace(t.Context(), shop)
				w.before = nil
				w.settle(w.process())
				assert.Equal(t, s.free, holder(w.lease("lock.x")) == "")
				for _, account := range []string{"till", "other"} {
					assert.Contains(t, w.role(account).Rules[0].ResourceNames, "lock.x")
				}
			})
		}
	}
}

// In iteration n, a second process does all its work just before the n-th write of the first
// process. A fast agent then immediately acquires the slot.
func TestTwoEnrollProcessesNeverFreeAHeldLease(t *testing.T) {
	for at := 1; at <= 8; at++ {
		t.Run(fmt.Sprintf("write %d", at), func(t *testing.T) {
			w := newWorld(t, gated("a", "till", "lock.x"), gated("b", "other", "lock.x"))
			took := ""
			w.before = func(n int) error {
				if n != at {
					return nil
				}
				w.before = nil
				w.settle(w.process())
				w.holds("lock.x", "a_1")
				took = "a_1"
				return nil
			}
			_, _ = w.process().Namespace(t.Context(), shop)
			w.before = nil
			w.settle(w.process())
			assert.Equal(t, took, holder(w.lease("lock.x")), "the agent lost its slot to enroll")
		})
	}
}

func TestEnrollNeverChangesForeignLeases(t *testing.T) {
	theirs := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "lock.x"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(step.Unknown), LeaseDurationSeconds: new(int32(15))},
	}
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, theirs, pod)
	r := w.process()
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")), "freed")
	assert.NotContains(t, w.lease("lock.x").Labels, api.ManagedLabel)
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)

	// After the deletion of the pod, no pod claims the Lease. Enroll removes the right on the
	// Lease, but not the Lease.
	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.NotNil(t, w.lease("lock.x"))
	assert.Nil(t, w.role("till"))
}

func TestEnrollWritesNothingIfNothingHasChanged(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x,lock.y"), gated("b", "other", "lock.x"))
	r := w.process()
	w.settle(r)
	writes := w.writes
	again, err := r.Namespace(t.Context(), shop)
	require.NoError(t, err)
	assert.Zero(t, again)
	assert.Equal(t, writes, w.writes)
}

// The caches contain only Leases that enroll made, so no event reports the deletion
// of a foreign Lease.
func TestEnrollPeriodicallyChecksLeasesItDidNotMake(t *testing.T) {
	theirs := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "lock.x"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("elector"), LeaseDurationSeconds: new(int32(15))},
	}
	w := newWorld(t, theirs, gated("a", "till", "lock.x"))
	r := w.process()
	again, err := r.Namespace(t.Context(), shop)
	require.NoError(t, err)
	assert.Equal(t, foreignRecheck, again)

	w.remove(theirs)
	again, err = r.Namespace(t.Context(), shop)
	require.NoError(t, err)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")), "an agent may have held a Lease that a Role names")
	assert.Zero(t, again)
}
