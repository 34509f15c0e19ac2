// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// parts is the number of shards of each Job in these tests.
const parts = 3

// partJob creates the Job "map" with shards, and returns its UID. Each slot has a record, which
// shows whether two processes ran under the slot at once.
func partJob(s *space.Space, edit func(*batchv1.JobSpec)) string {
	s.Helper()
	a := app.App{Name: "map", Record: "$" + api.SlotEnv, Annotations: app.Claim(api.ShardsAnnotation, strconv.Itoa(parts)), Args: []string{"-run-for=10s", "-stop-code=143"}}
	a.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	spec := app.Job(s, a).Spec
	spec.Template.Spec.RestartPolicy, spec.BackoffLimit = corev1.RestartPolicyNever, new(int32(20))
	edit(&spec)
	job, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	return string(job.UID)
}

// reduceJob creates a Job whose pod waits until all shards of the Job "map" are done. reduceJob
// returns once this pod waits.
func reduceJob(s *space.Space, name string) {
	s.Helper()
	a := later(name, "shards.job.map")
	a.Args = []string{"-run-for=300ms"}
	_, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: app.Job(s, a).Spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Await(space.StartTimeout, "the pod waits", func() bool { return waits(s, a) })
}

// awaitComplete waits until a Job is complete.
func awaitComplete(s *space.Space, name string) {
	s.Helper()
	s.Await(2*space.StartTimeout, name+" is complete", func() bool {
		job, err := s.Client.BatchV1().Jobs(s.Namespace).Get(s.Context(), name, metav1.GetOptions{})
		require.NoError(s, err)
		return status.Complete(job)
	})
}

// partOf returns the name of a shard's Lease.
func partOf(shard int) string { return api.ShardLease("shards.job.map", shard) }

// mapsOf returns the processes that ran a shard and ended with success.
func mapsOf(s *space.Space, shard int) record.Record {
	return slices.DeleteFunc(s.Record(partOf(shard)).Mains(), func(p record.Process) bool { return !p.Ended || p.Code != 0 })
}

// anyPart waits until a pod runs a shard, and returns the process.
func anyPart(s *space.Space) (found record.Process) {
	s.Helper()
	s.Await(space.StartTimeout, "a shard runs", func() bool {
		for shard := range parts {
			if now := s.Running(partOf(shard)); now != nil {
				found = *now
				return true
			}
		}
		return false
	})
	return found
}

// checkParts demands that each shard has succeeded once in each of the runs, and that no two
// processes of a shard lived at once. The Job with the name in the argument "reduce" must have
// started after the last success of each shard.
func checkParts(s *space.Space, reduce string, runs ...string) {
	s.Helper()
	awaitComplete(s, "map")
	awaitComplete(s, reduce)
	started := s.Record(reduce)[0].Start
	for shard := range parts {
		assert.Equal(s, api.Done(strings.Join(runs, ",")), api.Done(s.Lease(partOf(shard)).Annotations[api.DoneAnnotation]))
		assert.Empty(s, s.Record(partOf(shard)).Overlaps(), "never two processes under shard %d", shard)
		maps := mapsOf(s, shard)
		if assert.Len(s, maps, len(runs), "shard %d succeeds once in each run", shard) {
			assert.Less(s, maps[len(maps)-1].Last, started, "shard %d succeeds before the pod that waits starts", shard)
		}
	}
}

// docs/reference/compatibility.md: lifecycle/shards carried
func TestEachShardOfAJobSucceedsOnce(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	// The Job has three shards and needs four successful pods, so one pod finds no shard left.
	spare := func(spec *batchv1.JobSpec) {
		spec.Parallelism, spec.Completions = new(int32(2)), new(int32(parts+1))
	}
	first := partJob(s, spare)
	victim := anyPart(s)
	reduceJob(s, "reduce")
	app.DeletePod(s, s.Pod(victim.Pod))
	checkParts(s, "reduce", first)
	skipped := slices.DeleteFunc(s.Pods("map"), func(pod *corev1.Pod) bool {
		ran := func(p record.Process) bool { return p.Pod == pod.Name }
		return slices.ContainsFunc(slices.Concat(s.Record(partOf(0)), s.Record(partOf(1)), s.Record(partOf(2))), ran)
	})
	spared := 1
	for shard := range parts {
		// If the victim succeeded before its deletion, the victim's replacement also finds no shard
		// left. Then two pods run no shard.
		if slices.ContainsFunc(mapsOf(s, shard), func(p record.Process) bool { return p.Pod == victim.Pod }) {
			spared = 2
		}
	}
	require.Len(t, skipped, spared)
	assert.Equal(t, corev1.PodSucceeded, skipped[0].Status.Phase)
	s.Await(space.Soon, "an Event says so", func() bool { return s.Event("Pod", skipped[0].Name, "AlreadyDone") != nil })

	// A new Job with the name "map" does each shard again.
	kubectl.Must(s, "", "delete", "job", "map", "--timeout=120s")
	second := partJob(s, spare)
	reduceJob(s, "again")
	checkParts(s, "again", first, second)
}

func TestCompletionIndexDeterminesThePodsShard(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	run := partJob(s, func(spec *batchv1.JobSpec) {
		spec.CompletionMode = new(batchv1.IndexedCompletion)
		spec.Parallelism, spec.Completions = new(int32(parts)), new(int32(parts))
	})
	victim := anyPart(s)
	reduceJob(s, "reduce")
	app.DeletePod(s, s.Pod(victim.Pod))
	checkParts(s, "reduce", run)
	for shard := range parts {
		for _, p := range s.Record(partOf(shard)) {
			assert.True(t, strings.HasPrefix(p.Pod, fmt.Sprintf("map-%d-", shard)), "%s has shard %d", p.Pod, shard)
		}
	}
}
