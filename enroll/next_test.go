// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// leaseNames returns the names of all Leases.
func (w *world) leaseNames() []string {
	w.t.Helper()
	var list coordinationv1.LeaseList
	require.NoError(w.t, w.server.List(w.t.Context(), &list, client.InNamespace(shop)))
	names := []string{}
	for _, l := range list.Items {
		names = append(names, l.Name)
	}
	return names
}

func TestEnrollMakesNextLeasesOnlyWhereRevisionsCompete(t *testing.T) {
	for slot, wanted := range map[string]bool{
		"lock.x": true, "singleton.deployment.x": true, "singleton-writer.statefulset.x": true,
		"singleton.daemonset.x": true, "singleton.rollout-argoproj-io.x": true, longLock(0): true,
		"singleton.job.x": false, "singleton.cronjob.x": false, "singleton.pod.x": false, "singleton.replicaset.x": false,
		"singleton.rollout-example-com.x": false, "semaphore.pool.0": false,
	} {
		t.Run(slot[:min(len(slot), 40)], func(t *testing.T) {
			w := newWorld(t, gated("a", "till", slot))
			w.settle(w.process())
			named := []string{slot}
			if wanted {
				named = withNext(slot)
			}
			assert.ElementsMatch(t, named, w.leaseNames())
			assert.Equal(t, named, w.role("till").Rules[0].ResourceNames)
			assert.Len(t, remembered(w.role("till")), 1, "a Role remembers the slot alone")
		})
	}
}

func TestNewNextLeaseHasNoHolder(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.settle(w.process())
	next := w.lease("next.lock.x")
	assert.Empty(t, next.Spec)
	assert.Equal(t, map[string]string{api.ManagedLabel: managed}, next.Labels)
}

// No Role has named the slot before, so enroll immediately frees the slot's new Lease, although the
// next Lease exists already.
func TestEnrollRemovesUnknownHolderDespiteExistingNextLease(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.create(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "next.lock.x", Labels: map[string]string{api.ManagedLabel: managed},
	}})
	r := w.process()
	w.settle(r)
	assert.Empty(t, holder(w.lease("lock.x")))

	w.holds("next.lock.x", "b_2")
	w.holds("lock.x", "a_1")
	w.vanish("lock.x")
	w.settle(r)
	assert.Equal(t, step.Unknown, holder(w.lease("lock.x")))
	assert.Equal(t, "b_2", holder(w.lease("next.lock.x")), "the pod that spoke stays")
}

func TestEnrollRecreatesNextLeaseWithoutChangingTheSlot(t *testing.T) {
	for _, upgrade := range []bool{false, true} {
		t.Run(fmt.Sprintf("upgrade %v", upgrade), func(t *testing.T) {
			w := newWorld(t, gated("a", "till", "lock.x"))
			w.settle(w.process())
			w.holds("lock.x", "a_1")
			held := w.lease("lock.x")
			w.vanish("next.lock.x")
			if upgrade { // an earlier version of enroll made the Role
				role := w.role("till")
				role.Rules = AgentRules("lock.x")
				require.NoError(t, w.server.Update(t.Context(), role))
			}
			r := w.process()
			w.settle(r)
			require.NotNil(t, w.lease("next.lock.x"))
			assert.Empty(t, holder(w.lease("next.lock.x")))
			assert.Equal(t, held, w.lease("lock.x"))
			assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
		})
	}
}

// An earlier version of enroll regards each name in a Role's rules as a slot, even the name of a
// next Lease. So that version writes next Leases into the Role's memory. The present version
// drops next Leases from that memory.
func TestEnrollNeverDeletesNextLeaseThatRolesRecord(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	r := w.process()
	w.settle(r)
	role := w.role("till")
	role.Annotations[leasesAnnotation] = strings.Replace(role.Annotations[leasesAnnotation], "{", `{"next.lock.x":{"seconds":3600,"uid":""},`, 1)
	require.NoError(t, w.server.Update(t.Context(), role))
	w.settle(r)
	w.now = w.now.Add(2 * time.Hour)
	assert.Zero(t, w.settle(r), "nothing is unclaimed")
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
	require.NotNil(t, w.lease("next.lock.x"))
}

func TestEnrollDeletesUnusedSlotWithItsNextLease(t *testing.T) {
	pod := lasting(gated("a", "till", "lock.x"), "60s")
	w := newWorld(t, pod, gated("b", "till", "lock.y"))
	r := w.process()
	w.settle(r)
	w.holds("lock.x", "a_1")
	w.holds("next.lock.x", "b_2")
	w.remove(pod)
	assert.Equal(t, 60*time.Second, w.settle(r), "the slot's duration counts for both")
	w.now = w.now.Add(time.Minute)
	w.settle(r)
	assert.ElementsMatch(t, withNext("lock.y"), w.leaseNames())
	assert.Equal(t, withNext("lock.y"), w.role("till").Rules[0].ResourceNames)
}

func TestNextLeaseWhoseSlotIsGoneIsDeleted(t *testing.T) {
	for crash := 1; crash <= 5; crash++ {
		t.Run(fmt.Sprintf("write %d", crash), func(t *testing.T) {
			w := crashedSweep(t, crash)
			next := w.process()
			for range 2 { // the sweeps of the Role and of the Lease may each wait for a lease duration
				w.settle(next)
				w.now = w.now.Add(time.Hour)
			}
			w.settle(next)
			assert.Empty(t, w.leaseNames())
			assert.Nil(t, w.role("till"))
		})
	}
}

// A quota on Leases, or a policy, may refuse the next Lease.
func TestAccountGetsLeaseRightsDespiteMissingNextLease(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.before = func(write int) error {
		if write == 1 {
			return errCrash
		}
		return nil
	}
	r := w.process()
	_, err := r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, errCrash, "enroll tries again")
	require.NotNil(t, w.lease("lock.x"))
	assert.Empty(t, holder(w.lease("lock.x")))
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
	w.settle(r)
	assert.NotNil(t, w.lease("next.lock.x"))
}

func TestEnrollNeverChangesForeignNextLeases(t *testing.T) {
	theirs := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "next.lock.x"}}
	pod := gated("a", "till", "lock.x")
	w := newWorld(t, theirs, pod)
	r := w.process()
	for range 3 {
		_, err := r.Namespace(t.Context(), shop)
		require.NoError(t, err)
	}
	assert.Empty(t, holder(w.lease("lock.x")))
	w.remove(pod)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	assert.Equal(t, []string{"next.lock.x"}, w.leaseNames())
	assert.Empty(t, w.lease("next.lock.x").Labels)
}

// podOf returns a pod of the Deployment "biller", from a template with the given hash.
func podOf(name, hash string) *corev1.Pod {
	pod := gated(name, "till", biller)
	pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "biller-" + hash, UID: "u", Controller: new(true)}}
	return pod
}

const biller = "singleton.deployment.biller"

func TestHintCostsAWriteOnlyWhenAWorkloadIsScaled(t *testing.T) {
	d := deployment(singleton, singleton)
	w := newWorld(t, d)
	r := w.process()
	w.settle(r)
	next := func() string {
		t.Helper()
		return w.lease(api.NextLease(biller)).Annotations[api.AloneAnnotation]
	}
	assert.Equal(t, api.AloneTrue, next(), "the hint comes with the next Lease")
	assert.Equal(t, 2, w.requests["create Lease"])
	assert.Equal(t, 1, w.requests["update Lease"], "enroll frees the slot's own Lease")

	costs := func(what string, requests map[string]int, do func()) {
		t.Helper()
		clear(w.requests)
		do()
		w.settle(r)
		assert.Equal(t, requests, w.requests, what)
		again := w.process()
		again.Events = nil
		w.settle(again)
		assert.Equal(t, requests, w.requests, "%s, and a new process", what)
	}
	scale := func(replicas int32) func() {
		return func() {
			require.NoError(t, w.server.Get(t.Context(), client.ObjectKeyFromObject(d), d))
			d.Spec.Replicas = &replicas
			require.NoError(t, w.server.Update(t.Context(), d))
		}
	}
	nothing, write := map[string]int{}, map[string]int{"get Lease": 1, "update Lease": 1}
	first, second, third := podOf("a", "1"), podOf("b", "2"), podOf("c", "2")
	costs("the first pod", nothing, func() { w.create(first) })
	w.holds(api.NextLease(biller), "b_2")
	says := w.lease(api.NextLease(biller))
	says.Annotations[api.RevisionAnnotation] = "u/2/2"
	require.NoError(t, w.server.Update(t.Context(), says))
	costs("a rollout begins", nothing, func() { w.create(second) })
	costs("a rollout ends", nothing, func() { w.remove(first) })
	costs("the pod is deleted", nothing, func() { w.remove(second) })
	costs("and made anew", nothing, func() { w.create(podOf("b", "2")) })
	costs("to zero", nothing, scale(0))
	costs("and back", nothing, scale(1))
	assert.Equal(t, api.AloneTrue, next())

	costs("a second replica is declared", write, scale(2))
	assert.Empty(t, next())
	costs("its pod", nothing, func() { w.create(third) })
	costs("more replicas", nothing, scale(5))
	costs("one replica is declared, and two pods live", nothing, scale(1))
	assert.Empty(t, next())
	costs("the other pod is gone", write, func() { w.remove(third) })
	assert.Equal(t, api.AloneTrue, next())
	said := w.lease(api.NextLease(biller))
	assert.Equal(t, "b_2", holder(said), "what a pod says stays")
	assert.Equal(t, "u/2/2", said.Annotations[api.RevisionAnnotation], "what a pod says stays")
	costs("the Deployment is deleted", nothing, func() { w.remove(d) })
}

// The workloads of a namespace that has not opted in, and Argo Rollouts, have no declared replicas.
func TestUnknownWorkloadGetsNoHint(t *testing.T) {
	w := newWorld(t, gated("a", "till", "singleton.rollout-argoproj-io.x"), podOf("b", "1"), gated("c", "till", "lock.x"))
	w.settle(w.process())
	for _, slot := range []string{"singleton.rollout-argoproj-io.x", biller, "lock.x"} {
		assert.Empty(t, w.lease(api.NextLease(slot)).Annotations, slot)
	}
}

func TestPodOfAnotherWorkloadAtALockRemovesItsHint(t *testing.T) {
	locks := map[string]string{api.LockAnnotation: "x"}
	own, other := podOf("a", "1"), podOf("b", "1")
	own.Annotations[api.SlotsAnnotation], other.Annotations[api.SlotsAnnotation] = "lock.x", "lock.x"
	other.OwnerReferences[0].Name = "biller-2"
	w := newWorld(t, deployment(locks, locks), own)
	r := w.process()
	w.settle(r)
	assert.Equal(t, api.AloneTrue, w.lease("next.lock.x").Annotations[api.AloneAnnotation])
	w.create(other)
	w.settle(r)
	assert.Empty(t, w.lease("next.lock.x").Annotations, "the pod's ReplicaSet is not that of the Deployment")
}

// A pod writes its word between the read of the next Lease and the write of the hint.
func TestLostRaceForTheHintIsRepeated(t *testing.T) {
	d := deployment(singleton, singleton)
	w := newWorld(t, d)
	r := w.process()
	w.settle(r)
	d.Spec.Replicas = new(int32(2))
	require.NoError(t, w.server.Update(t.Context(), d))
	w.before = func(int) error { return apierrors.NewConflict(schema.GroupResource{}, api.NextLease(biller), errCrash) }
	_, err := r.Namespace(t.Context(), shop)
	require.True(t, raced(err))
	w.before = nil
	w.settle(r)
	assert.Empty(t, w.lease(api.NextLease(biller)).Annotations)
}
