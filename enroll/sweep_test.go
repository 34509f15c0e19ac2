// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

func TestUnclaimedLeaseIsSweptAfterWholeLeaseDuration(t *testing.T) {
	pod := lasting(gated("a", "till", "lock.x"), "60s")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "a_1")
	w.remove(pod)

	assert.Equal(t, 60*time.Second, w.settle(r), "enroll must wait for the Role's duration, not the Lease's")
	w.now = w.now.Add(59 * time.Second)
	// The agent of the deleted pod still renews.
	w.holds("lock.x", "a_1")
	assert.Equal(t, 60*time.Second, w.settle(r), "the renewal must restart the wait")
	w.now = w.now.Add(59 * time.Second)
	assert.Equal(t, time.Second, w.settle(r))
	assert.NotNil(t, w.lease("lock.x"))
	w.now = w.now.Add(time.Second)
	w.settle(r)
	assert.Nil(t, w.lease("lock.x"))
	assert.Nil(t, w.role("till"))
	assert.Error(t, w.server.Get(t.Context(), types.NamespacedName{Namespace: shop, Name: RoleName("till")}, &rbacv1.RoleBinding{}))

	w.create(gated("b", "till", "lock.x"))
	w.settle(r)
	assert.Empty(t, holder(w.lease("lock.x")), "a swept Lease must be created free")
}

// byPerson returns the Lease that "kubectl metaparticle hold" makes.
func byPerson(name string, seconds int32, at time.Time) *coordinationv1.Lease {
	now := metav1.NewMicroTime(at)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, Labels: map[string]string{api.ManagedLabel: managed}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new(api.UnknownPerson), LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now,
		},
	}
}

// A person's lock needs neither an opted-in namespace nor a pod.
func TestLockOfPeopleIsSweptADayAfterItsLastWrite(t *testing.T) {
	w := newWorld(t)
	w.optOut()
	r := w.process()
	w.create(byPerson("lock.ci", 30, w.now))
	assert.Equal(t, 24*time.Hour, w.settle(r))
	w.now = w.now.Add(23 * time.Hour)
	w.holds("lock.ci", api.PersonIdentity("0123456789abcdef", "ann"))
	w.now = w.now.Add(30 * time.Second)
	assert.Equal(t, 24*time.Hour-30*time.Second, w.settle(r), "the write restarts the day")
	r = w.process()
	assert.Equal(t, 24*time.Hour-30*time.Second, w.settle(r), "and a new process goes on with it")
	w.now = w.now.Add(24*time.Hour - 30*time.Second)

	w.before = func(int) error { // a person holds just before the deletion
		w.before = nil
		w.holds("lock.ci", api.PersonIdentity("0123456789abcdef", "pat"))
		return nil
	}
	_, _ = r.Namespace(t.Context(), shop)
	require.NotNil(t, w.lease("lock.ci"), "the deletion was of another version")
	w.settle(r)
	w.now = w.now.Add(24 * time.Hour)
	w.settle(r)
	assert.Nil(t, w.lease("lock.ci"))
}

func TestSweepDeletesOnlyLeasesThatNoPodClaims(t *testing.T) {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod, gated("b", "till", "lock.y"))
	r := w.process()
	w.settle(r)
	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(30 * time.Second)
	w.settle(r)
	assert.Nil(t, w.lease("lock.x"))
	assert.NotNil(t, w.lease("lock.y"))
	assert.Equal(t, withNext("lock.y"), w.role("till").Rules[0].ResourceNames)
}

// A vanished Lease may still have a holder. The Role must name the Lease for as long
// as that holder may run.
func TestLeaseRecreatedBeforeExpiryHasUnknownHolder(t *testing.T) {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "a_1")
	w.remove(pod)
	w.vanish("lock.x")
	assert.Equal(t, 30*time.Second, w.settle(r))
	w.now = w.now.Add(29 * time.Second)
	w.create(gated("b", "till", "lock.x"))
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
}

func TestEnrollDeletesRoleOfVanishedLeaseAfterExpiry(t *testing.T) {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.remove(pod)
	w.vanish("lock.x")
	w.settle(r)
	w.now = w.now.Add(30 * time.Second)
	w.settle(r)
	assert.Nil(t, w.role("till"))
}

// hidePods removes all pods from the process's cache, as if the cache were very stale.
func hidePods(w *world, r *Reconciler) {
	empty := newWorld(w.t)
	live := r.Client.(client.WithWatch)
	r.Client = interceptor.NewClient(live, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if _, ok := list.(*corev1.PodList); ok {
				return empty.server.List(ctx, list, options...)
			}
			return c.List(ctx, list, options...)
		},
	})
}

func TestPodMissingFromTheCacheKeepsItsLease(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	r := w.process()
	w.settle(r)
	hidePods(w, r)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.NotNil(t, w.lease("lock.x"))
	assert.NotNil(t, w.role("till"))
}

// In each iteration, a new pod claims the Lease just before a different write of the sweep. Then a
// second process creates the Lease again.
func TestSweepKeepsLeaseThatANewPodClaims(t *testing.T) {
	for at := 1; at <= 4; at++ {
		for _, account := range []string{"till", "other"} {
			sweepAgainstANewPod(t, at, account)
		}
	}
}

// sweepAgainstANewPod sweeps lock.x after its only claimant, pod a, is gone. Just before the
// sweep's write with the given number, pod c claims lock.x. Pod b claims lock.y under the given
// account. If pod a has the same account, the sweep removes only one name from the Role. Otherwise,
// the sweep deletes the whole Role of pod a's account.
func sweepAgainstANewPod(t *testing.T, at int, account string) {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod, gated("b", account, "lock.y"))
	sweeper := w.process()
	w.settle(sweeper)
	w.remove(pod)
	w.settle(sweeper)
	w.now = w.now.Add(time.Hour)
	w.writes = 0
	w.before = func(n int) error {
		if n != at {
			return nil
		}
		w.before = nil
		w.create(gated("c", "till", "lock.x"))
		w.settle(w.process())
		return nil
	}
	_, _ = sweeper.Namespace(t.Context(), shop)
	if w.before != nil {
		return // the sweep has ended after fewer than "at" writes
	}
	w.settle(sweeper)
	require.NotNil(t, w.lease("lock.x"), "write %d", at)
	require.Contains(t, remembered(w.role("till")), "lock.x", "write %d", at)
	assert.EqualValues(t, w.lease("lock.x").UID, remembered(w.role("till"))["lock.x"].UID, "write %d", at)
}

// crashedSweep returns a world whose enroll crashed at a write of its sweep of lock.x.
func crashedSweep(t *testing.T, write int) *world {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.crashFrom(write)
	_, _ = r.Namespace(t.Context(), shop)
	w.before = nil
	return w
}

func TestEnrollResumesItsSweepAfterACrash(t *testing.T) {
	for crash := 1; crash <= 4; crash++ {
		w := crashedSweep(t, crash)
		next := w.process()
		w.settle(next)
		w.now = w.now.Add(time.Hour)
		w.settle(next)
		assert.Nil(t, w.lease("lock.x"), "write %d", crash)
		assert.Nil(t, w.role("till"), "write %d", crash)
		assert.Empty(t, w.bindings(), "write %d", crash)
	}
}

func TestLeaseOfGatedPodSurvivesNamespaceOptOut(t *testing.T) {
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.optOut()
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	require.NotNil(t, w.lease("lock.x"))
	w.vanish("lock.x")
	w.settle(r)
	require.NotNil(t, w.lease("lock.x"), "enroll did not restore the Lease of a gated pod")

	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.Nil(t, w.lease("lock.x"))
	assert.Nil(t, w.role("till"))
}

func TestSlotsStayClaimedUntilThePodEnds(t *testing.T) {
	ending := gated("a", "till", "lock.x")
	ending.Finalizers = []string{"example.com/slow"}
	tests := map[string]struct {
		pod    *corev1.Pod
		claims bool
	}{
		"running":       {gated("a", "till", "lock.x"), true},
		"terminating":   {ending, true},
		"succeeded":     {gated("a", "till", "lock.x"), false},
		"failed":        {gated("a", "till", "lock.x"), false},
		"without slots": {gated("a", "till", ""), false},
	}
	tests["succeeded"].pod.Status.Phase = corev1.PodSucceeded
	tests["failed"].pod.Status.Phase = corev1.PodFailed
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.pod)
			if name == "terminating" {
				w.remove(test.pod)
			}
			w.settle(w.process())
			assert.Equal(t, test.claims, w.lease("lock.x") != nil)
		})
	}
}

func TestEnrollWritesNothingIntoATerminatingNamespace(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	var namespace corev1.Namespace
	require.NoError(t, w.server.Get(t.Context(), types.NamespacedName{Name: shop}, &namespace))
	namespace.Finalizers = []string{"example.com/slow"}
	require.NoError(t, w.server.Update(t.Context(), &namespace))
	w.remove(&namespace)
	w.settle(w.process())
	assert.Zero(t, w.writes)
}

func TestForeignAgentRoleBlocksNoOtherAccountsRights(t *testing.T) {
	theirs := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: RoleName("till")}}
	w := newWorld(t, theirs, gated("a", "till", "lock.x"), gated("b", "other", "lock.y"))
	_, err := w.process().Namespace(t.Context(), shop)
	require.ErrorIs(t, err, ErrForeign)
	assert.Empty(t, w.role("till").Rules)
	assert.NotContains(t, w.role("till").Labels, api.ManagedLabel)
	assert.Equal(t, withNext("lock.y"), w.role("other").Rules[0].ResourceNames)
}
