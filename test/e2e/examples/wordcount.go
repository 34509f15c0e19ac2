// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// mapper returns the pod that holds the shard, if its application runs. The result is nil if no
// such pod exists, or if the pod is being deleted.
func (e example) mapper(shard int) *corev1.Pod {
	pod := e.Holder(api.ShardLease("shards.job.map", shard))
	if pod == nil || pod.DeletionTimestamp != nil || process.Main(pod) == nil {
		return nil
	}
	return pod
}

// awaitMapper waits until a pod maps another shard than the given ones, and returns the pod and
// that shard.
func (e example) awaitMapper(but ...int) (found *corev1.Pod, shard int) {
	e.Space.Helper()
	e.Await(space.StartTimeout, "a shard runs", func() bool {
		for shard = range 8 {
			if found = e.mapper(shard); found != nil && !slices.Contains(but, shard) {
				return true
			}
		}
		return false
	})
	return found, shard
}

// docs/reference/compatibility.md: lifecycle/shards carried
func TestWordcountExampleCountsExactlyDespiteDeletionsAndKills(t *testing.T) {
	e := apply(t, "wordcount", "wordcount")
	deleted, first := e.awaitMapper()
	app.DeletePod(e.Space, deleted)
	killed, second := e.awaitMapper(first)
	process.SignalMain(e.Space, killed, unix.SIGKILL)
	agentless, _ := e.awaitMapper(first, second)
	process.Signal(e.Space, agentless, process.Agent, unix.SIGKILL)
	count := func() {
		t.Helper()
		e.complete("map")
		e.complete("reduce")
		plain, counts := map[string]int{}, map[string]int{}
		words := strings.Fields(e.asked("deployment/store", "cat", "/usr/share/common-licenses/GPL-3"))
		require.Greater(t, len(words), 5000)
		for _, word := range words {
			plain[word]++
		}
		require.NoError(t, json.Unmarshal([]byte(e.asked("deployment/store", "redis-cli", "GET", "counts")), &counts))
		assert.Equal(t, plain, counts)
	}
	count()
	run := kubectl.Must(e.Space, "", "get", "job", "map", "-o", "jsonpath={.metadata.uid}")
	for shard := range 8 {
		l := e.Lease(api.ShardLease("shards.job.map", shard))
		require.NotNil(t, l)
		assert.Equal(t, api.Done(run), api.Done(l.Annotations[api.DoneAnnotation]))
		assert.Equal(t, run, api.ParseStamp(l.Annotations[api.StampAnnotation]).Run)
	}

	// New Jobs of the same names count again. The new Job "reduce" waits for the shards of the new
	// Job "map".
	kubectl.Must(e.Space, "", "exec", "deployment/store", "--", "redis-cli", "FLUSHALL")
	kubectl.Must(e.Space, "", "delete", "job", "map", "reduce")
	kubectl.Must(e.Space, "", "apply", "-f", folderOf("wordcount"))
	count()
	for shard := range 8 {
		assert.Len(t, api.Done(e.Lease(api.ShardLease("shards.job.map", shard)).Annotations[api.DoneAnnotation]).Keys(), 2)
	}
}
