// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// partitioned is a workload with shards. Each process has two records: one of its slot, and one of
// its shard and the number of shards. A failed flock of the first record proves that two processes
// run under the slot, whatever the number of shards.
type partitioned struct{ *space.Space }

// worker returns an application of five replicas with the given number of shards, and without
// ports.
func worker(shards int) app.App {
	a := app.App{
		Name: "workers", Record: "$" + api.SlotEnv + ",of$" + api.ShardsEnv + "-$" + api.ShardEnv,
		Replicas: 5, Annotations: app.Claim(api.ShardsAnnotation, strconv.Itoa(shards)),
		Edit: func(t *corev1.PodTemplateSpec) { t.Spec.Containers[0].Ports = nil },
	}
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// slotOf returns the Lease of a shard.
func slotOf(shard int) string {
	return api.ShardLease(api.ShardGroup(api.Workload{Group: "apps", Kind: "Deployment", Name: "workers"}), shard)
}

// ever returns all processes that ever ran with the given number of shards. The result has one
// record for each shard.
func (p partitioned) ever(shards int) []record.Record {
	var all []record.Record
	for i := range shards {
		all = append(all, p.Record(fmt.Sprintf("of%d-%d", shards, i)).Mains())
	}
	return all
}

// now returns the processes that run now with the given number of shards, sorted by shard.
func (p partitioned) now(shards int) (now record.Record) {
	for _, of := range p.ever(shards) {
		now = append(now, of.Running(space.Fresh)...)
	}
	return now
}

// awaitAll waits until each shard runs in one pod, and no process has the ID in the argument
// "former".
func (p partitioned) awaitAll(bound time.Duration, shards int, former string) (now record.Record) {
	p.Helper()
	p.Await(bound, fmt.Sprintf("all of %d shards run", shards), func() bool {
		now = p.now(shards)
		return len(now) == shards && !slices.ContainsFunc(now, func(r record.Process) bool { return r.ID == former })
	})
	pods := map[string]bool{}
	for i, r := range now {
		assert.Equal(p, slotOf(i), r.Slot, "each shard runs once")
		pods[r.Pod] = true
	}
	assert.Len(p, pods, shards, "each shard has a pod of its own")
	return now
}

// docs/reference/compatibility.md: lifecycle/shards carried
func TestNewShardCountTakesEffectDespiteDisconnectedNode(t *testing.T) {
	l := cluster.NeedLab(t, "it cuts a node off")
	p := partitioned{space.New(t)}
	a := worker(3)
	app.Create(p.Space, a)
	app.AwaitGated(p.Space, a)
	victim := p.awaitAll(space.StartTimeout, 3, "")[0]
	// A replica of the webhook may be on the victim's node. After the cut the API server would
	// refuse a change of the annotation (NotCarried), until the server calls the other replica. So
	// the test changes the annotation before the cut.
	kubectl.Must(p.Space, "", "annotate", "--overwrite", "deployment/"+a.Name, api.ShardsAnnotation+"=2")
	heal := fault.Node(t, victim.Node, l.Cut, l.Heal)
	cut := record.Now()
	budget := lease.Budget(t, lease.Fault)
	now := p.awaitAll(space.StartTimeout+2*lease.Fault, 2, "")
	first := slices.MinFunc(now, func(a, b record.Process) int { return int(a.Start - b.Start) })
	t.Logf("the node was cut off at 0; the first of 2 shards runs after %v", first.Start-cut)
	for _, of := range p.ever(3) {
		for _, r := range of {
			assert.Less(t, r.Last, first.Start, "%v has ended before any shard of the new number runs", r)
			if r.Node == victim.Node {
				assert.LessOrEqual(t, r.Last, cut+budget.Deadline(), "the child on the cut node is dead at the deadline")
			}
		}
	}
	heal()
	p.Never(lease.Handover, "the healed node's pods run again with the old number", func() bool { return len(p.now(3)) > 0 })
	p.awaitAll(space.Soon, 2, "")
	p.neverMixed(2, 3)
}

// neverMixed demands that no two processes for different numbers of shards lived at one instant.
// Also, no two processes under one shard may have lived at one instant.
func (p partitioned) neverMixed(numbers ...int) {
	p.Helper()
	type life struct {
		record.Process
		shards int
	}
	var all []life
	for _, shards := range numbers {
		for _, of := range p.ever(shards) {
			for _, r := range of {
				all = append(all, life{r, shards})
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if a.shards < b.shards {
				assert.False(p, a.Start <= b.Last && b.Start <= a.Last, "%v of %d shards and %v of %d shards at once", a.Process, a.shards, b.Process, b.shards)
			}
		}
	}
	for shard := range slices.Max(numbers) {
		assert.Empty(p, p.Record(slotOf(shard)).Overlaps(), "never two processes under shard %d", shard)
	}
}
