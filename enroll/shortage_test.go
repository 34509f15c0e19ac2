// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

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
