// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

var web = api.ShardGroup(api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"})

// worker returns a pod that runs, with the given number of shards.
func worker(name string, shards int) *corev1.Pod {
	pod := gated(name, "till", strings.Join(api.Claim{Kind: api.Shards, Size: shards}.Slots(api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}), ","))
	pod.Status.Phase = corev1.PodRunning
	return pod
}

// sharding returns the annotations of a workload with the given number of shards.
func sharding(shards int) map[string]string {
	return map[string]string{api.ShardsAnnotation: strconv.Itoa(shards)}
}

// stampOf returns the stamp of a Lease.
func stampOf(lease *coordinationv1.Lease) api.Stamp { return seenLease(lease).Stamp() }

// stamps returns the stamps of the Leases, by shard.
func (w *world) stamps() []string {
	w.t.Helper()
	var all []string
	for n := range 32 {
		if lease := w.lease(api.ShardLease(web, n)); lease != nil {
			all = append(all, strconv.Itoa(n)+": "+stampOf(lease).String())
		}
	}
	return all
}

// releases removes the holder from the Lease, as an agent does when it releases.
func (w *world) releases(name string) {
	w.t.Helper()
	lease := w.lease(name)
	lease.Spec.HolderIdentity = new("")
	require.NoError(w.t, w.server.Update(w.t.Context(), lease))
}

func TestEnrollStampsTheLeasesOfNewShards(t *testing.T) {
	w := newWorld(t, deployment(sharding(3), nil), worker("a", 3))
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"0: 1/3", "1: 1/3", "2: 1/3"}, w.stamps())
	w.requests = map[string]int{}
	w.settle(r)
	assert.Empty(t, w.requests, "a group in order costs no request")
}

// Before a write, enroll keeps only a part of each Lease in memory.
func TestStampKeepsOtherFieldsOfTheLease(t *testing.T) {
	w := newWorld(t, deployment(sharding(1), nil), worker("a", 1))
	r := w.process()
	w.settle(r)
	w.holds(api.ShardLease(web, 0), "a")
	w.releases(api.ShardLease(web, 0))
	lease := w.lease(api.ShardLease(web, 0))
	lease.Labels["team"], lease.Annotations["note"], lease.Spec.Strategy = "billing", "by hand", new(coordinationv1.OldestEmulationVersion)
	require.NoError(t, w.server.Update(t.Context(), lease))
	before := w.lease(lease.Name)
	w.remove(deployment(nil, nil))
	w.create(deployment(sharding(2), nil))
	w.create(worker("b", 2))
	w.settle(r)
	after := w.lease(lease.Name)
	assert.NotEqual(t, stampOf(before), stampOf(after))
	before.Annotations[api.StampAnnotation], before.ResourceVersion = after.Annotations[api.StampAnnotation], after.ResourceVersion
	assert.Equal(t, before, after)
}

func TestChangeOfShardCountWaitsForEachHolder(t *testing.T) {
	w := newWorld(t, deployment(sharding(2), nil), worker("a", 2), worker("b", 2))
	r := w.process()
	w.settle(r)
	w.holds(api.ShardLease(web, 0), "a")
	w.holds(api.ShardLease(web, 1), "b")

	w.remove(deployment(nil, nil))
	w.create(deployment(sharding(3), nil))
	pending := worker("c", 3)
	pending.Status.Phase = corev1.PodPending
	w.create(pending)
	w.settle(r)
	assert.Equal(t, []string{"0: 1/2", "1: 1/2", "2: "}, w.stamps(), "the template alone stops no shard, nor does a pod that does not run")

	w.create(worker("d", 3))
	w.settle(r)
	closed := []string{"0: 2/3 closed", "1: 2/3 closed", "2: 2/3 closed"}
	assert.Equal(t, closed, w.stamps())
	w.releases(api.ShardLease(web, 0))
	w.now = w.now.Add(29 * time.Second)
	w.settle(r)
	assert.Equal(t, closed, w.stamps(), "the second holder has not expired")
	w.holds(api.ShardLease(web, 1), "b")
	w.now = w.now.Add(29 * time.Second)
	w.settle(r)
	assert.Equal(t, closed, w.stamps(), "the second holder has renewed")
	w.now = w.now.Add(time.Second)
	assert.Equal(t, closed, w.stamps())
	w.settle(r)
	w.now = w.now.Add(29 * time.Second)
	w.settle(r)
	assert.Equal(t, []string{"0: 2/3", "1: 2/3", "2: 2/3"}, w.stamps())
	assert.Empty(t, holder(w.lease(api.ShardLease(web, 1))))
}

func TestNewShardCountWaitsUntilDeletedLeaseExpires(t *testing.T) {
	w := newWorld(t, worker("a", 2))
	r := w.process()
	w.settle(r)
	w.holds(api.ShardLease(web, 1), "a")
	w.remove(worker("a", 2))
	w.create(worker("b", 1))
	w.vanish(api.ShardLease(web, 1))
	w.settle(r)
	assert.Equal(t, []string{"0: 2/1 closed"}, w.stamps(), "the last holder of shard 1 may be alive")
	w.now = w.now.Add(30 * time.Second)
	w.settle(r)
	w.settle(r)
	assert.Equal(t, []string{"0: 2/1"}, w.stamps(), "the sweep has withdrawn the right to shard 1")
}

// In each iteration, the first process stamps Leases for 3 shards. Just before write number crash+1
// of the first process, a second process stamps the Leases for 4 shards.
func TestRacingEnrollProcessesNeverAllowTwoShardCounts(t *testing.T) {
	for crash := range 12 {
		w := newWorld(t, worker("a", 2))
		first, second := w.process(), w.process()
		w.settle(first)
		w.holds(api.ShardLease(web, 1), "a")
		w.releases(api.ShardLease(web, 1))
		w.remove(worker("a", 2))
		w.create(worker("b", 3))
		w.writes = 0
		w.before = func(n int) error {
			if n != crash+1 {
				return nil
			}
			w.before = nil
			w.remove(worker("b", 3))
			w.create(worker("c", 4))
			w.settle(second)
			return nil
		}
		_, err := first.Namespace(t.Context(), shop)
		if err != nil {
			require.True(t, raced(err), err)
		}
		w.before = nil
		open := map[int]bool{}
		for n := range 4 {
			if lease := w.lease(api.ShardLease(web, n)); lease != nil && !stampOf(lease).Closed {
				open[stampOf(lease).Count] = true
			}
		}
		delete(open, 0)
		assert.LessOrEqual(t, len(open), 1, "%d: %v", crash, w.stamps())
		w.settle(first)
	}
}

func TestNewJobGetsShardsAfterHoldersReleaseThem(t *testing.T) {
	of := func(name, run string) *corev1.Pod {
		pod := worker(name, 2)
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "map", UID: types.UID(run), Controller: new(true)}}
		return pod
	}
	w := newWorld(t, of("a", "1-a"))
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"0: 1/2/1-a", "1: 1/2/1-a"}, w.stamps())
	w.holds(api.ShardLease(web, 1), "a")
	w.create(of("b", "2-b"))
	w.settle(r)
	assert.Equal(t, []string{"0: 1/2/1-a", "1: 1/2/1-a"}, w.stamps(), "a pod of the first run stays")

	w.remove(of("a", "1-a"))
	ended := of("c", "1-a")
	ended.Status.Phase = corev1.PodSucceeded
	w.create(ended)
	w.settle(r)
	assert.Equal(t, []string{"0: 2/2/2-b closed", "1: 2/2/2-b closed"}, w.stamps(), "a pod of the first run may run on")
	w.releases(api.ShardLease(web, 1))
	w.settle(r)
	assert.Equal(t, []string{"0: 2/2/2-b", "1: 2/2/2-b"}, w.stamps())
	w.remove(of("b", "2-b"))
	w.settle(r)
	assert.Equal(t, []string{"0: 2/2/2-b", "1: 2/2/2-b"}, w.stamps(), "the records of the last run stay")
	w.create(of("d", "2-b"))
	w.settle(r)
	w.now = w.now.Add(shortageNotice)
	w.settle(r)
	assert.Empty(t, w.events, "the pods of a Job take the shards one after the other")
}

func TestPendingPodRunsShardOnlyInInitContainer(t *testing.T) {
	pod := worker("a", 3)
	assert.True(t, runsShard(pod))
	pod.Status.Phase = corev1.PodPending
	assert.False(t, runsShard(pod))
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "migrate", Command: []string{api.ShimProgram, api.ExecRole}})
	assert.True(t, runsShard(pod))
	pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	assert.False(t, runsShard(pod))
}

func TestLongShortageOfShardPodsIsReportedOnce(t *testing.T) {
	w := newWorld(t, deployment(nil, sharding(3)), worker("a", 3))
	r := w.process()
	lacking := map[string]int{}
	r.Shortage = func(namespace string, shards int) { lacking[namespace] = shards }
	pending := worker("b", 3)
	pending.Status.Phase = corev1.PodPending
	w.create(pending)
	w.settle(r)
	assert.Equal(t, map[string]int{shop: 2}, lacking, "a pod that does not run has no shard")
	assert.Empty(t, w.events, "a rollout may cause a short shortage")

	again, err := r.Namespace(t.Context(), shop)
	require.NoError(t, err)
	assert.Equal(t, shortageNotice, again, "no event of the API server comes when the time is over")
	w.now = w.now.Add(shortageNotice)
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Equal(t, "biller ShardsLackPods: Only 1 of 3 shards can run, because no more pods of the workload run. "+
		"Scale the workload to 3 pods, or make metaparticle.io/shards smaller.", w.events[0])

	w.create(worker("c", 3))
	w.create(worker("d", 3))
	w.settle(r)
	assert.Equal(t, map[string]int{shop: 0}, lacking)
	w.remove(worker("c", 3))
	w.settle(r)
	w.now = w.now.Add(shortageNotice)
	w.settle(r)
	assert.Len(t, w.events, 2, "a later shortage is another one")
}

func TestShardsOfWorkloadWithoutPodsCauseNoEvent(t *testing.T) {
	w := newWorld(t, deployment(nil, sharding(3)))
	r := w.process()
	r.Shortage = func(_ string, shards int) { assert.Zero(t, shards) }
	w.settle(r)
	w.now = w.now.Add(shortageNotice)
	w.settle(r)
	assert.Empty(t, w.events)
}

func TestPodOfUnknownWorkloadGetsPodShortageEvent(t *testing.T) {
	w := newWorld(t, worker("b", 3), worker("a", 3))
	r := w.process()
	w.settle(r)
	w.now = w.now.Add(shortageNotice)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "a ShardsLackPods: Only 2 of 3 shards can run")
}
