// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// pool is a semaphore of three slots. Each slot has a record of its own. A failed flock of
// that record proves that two processes run under the slot.
type pool struct{ *space.Space }

// slots are the Leases of the pool.
var slots = api.Claim{Kind: api.Semaphore, Name: "pool", Size: 3}.Slots(api.Workload{})

// pooled returns an application of five replicas, of which three run.
func pooled() app.App {
	a := app.App{Name: "workers", Record: "$" + api.SlotEnv, Replicas: 5, Annotations: app.Claim(api.SemaphoreAnnotation, "pool=3")}
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// processes returns all processes that ever ran under a slot.
func (p pool) processes() record.Record {
	var all record.Record
	for _, slot := range slots {
		all = append(all, p.Record(slot).Mains()...)
	}
	return all
}

// running returns the processes that run now, sorted by slot.
func (p pool) running() record.Record {
	now := p.processes().Running(space.Fresh)
	slices.SortStableFunc(now, func(a, b record.Process) int { return slices.Index(slots, a.Slot) - slices.Index(slots, b.Slot) })
	return now
}

// awaitThree waits until three processes run, one under each slot, and no process has the ID in the
// argument "former".
func (p pool) awaitThree(bound time.Duration, former string) (now record.Record) {
	p.Helper()
	p.Await(bound, "three run", func() bool {
		now = p.running()
		return len(now) == len(slots) && !slices.ContainsFunc(now, func(r record.Process) bool { return r.ID == former })
	})
	for i, slot := range slots {
		assert.Equal(p, slot, now[i].Slot)
	}
	return now
}

// most returns the greatest number of processes that lived at one instant.
func most(all record.Record) (most int) {
	for _, at := range all {
		alive := 0
		for _, other := range all {
			if other.Start <= at.Start && at.Start <= other.Last {
				alive++
			}
		}
		most = max(most, alive)
	}
	return most
}

func TestSemaphoreLetsThreeOfFivePodsRun(t *testing.T) {
	l := cluster.NeedLab(t, "it cuts a node off")
	p := pool{space.New(t)}
	a := pooled()
	app.Create(p.Space, a)
	app.AwaitGated(p.Space, a)
	now := p.awaitThree(space.StartTimeout, "")
	p.Never(lease.Handover, "four run", func() bool { return len(p.running()) > len(slots) })
	p.Await(space.Soon, "the holders alone are Ready", func() bool {
		ready := slices.DeleteFunc(p.Pods(a.Name), func(pod *corev1.Pod) bool { return !status.Condition(pod, corev1.PodReady) })
		return len(ready) == len(slots)
	})

	for _, f := range fault.OfPods() {
		victim := now[0]
		f.Strike(p.Space, p.Pod(victim.Pod))
		former := victim.ID
		if f.Survivable {
			former = ""
		}
		now = p.awaitThree(lease.Fault+f.Vacancy+space.Soon, former)
		t.Logf("%s: %v", f.Name, now)
	}

	victim := now[0]
	heal := fault.Node(t, victim.Node, l.Cut, l.Heal)
	cut := record.Now()
	budget := lease.Budget(t, lease.Fault)
	now = p.awaitThree(budget.Duration+budget.Duration/2+space.Soon, victim.ID)
	i := slices.IndexFunc(p.processes(), func(r record.Process) bool { return r.ID == victim.ID })
	require.GreaterOrEqual(t, i, 0)
	assert.LessOrEqual(t, p.processes()[i].Last, cut+budget.Deadline(), "the child is dead at the deadline")
	heal()
	before := now
	p.Never(lease.Handover, "the healed pods disturb somebody", func() bool { return len(p.running()) > len(slots) })
	for j, r := range p.awaitThree(space.Soon, "") {
		assert.Equal(t, before[j].ID, r.ID)
	}
	assert.Equal(t, len(slots), most(p.processes()), "never four, by the kernel's clock")
}
