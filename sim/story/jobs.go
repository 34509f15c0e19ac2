// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// jobs is a story of pods that end. The pods come one after the other, while faults happen, and
// compete for one slot. If the slot is a lock, some pods skip while another pod holds, and some
// pods wait for a bounded time. The invariants of safety must hold all the time. After the faults
// every pod must end.
type jobs struct {
	*recovery
	trouble *trouble
	made    int // the number of pods so far
	// assign gives a new pod its Job, or its key.
	assign  func(*world.Pod)
	waiters *waiters
	// last plays the last part of the story.
	last func()
}

// mostPods is the largest number of pods that the story [jobs] has at one instant.
const mostPods = 5

func newJobs(w *world.World) *jobs {
	j, t := newEnding(w, "job", api.LockLease("a"))
	if engine.Chance(w.Rng, .7) {
		t.OnBusy = api.OnBusySkip
	}
	if t.OnBusy == "" || engine.Chance(w.Rng, .3) {
		t.WaitAtMost = engine.Between(w.Rng, 5*time.Second, 2*time.Minute)
	}
	j.assign = func(p *world.Pod) { p.Job = j.nextJob() }
	j.begin(t)
	j.waiters = newWaiters(w, func(*rand.Rand) []api.Condition { return []api.Condition{{Lease: t.Slots[0]}} })
	j.last = j.lastHolder
	return j
}

// newEnding returns a story that has no template yet, and a template of pods that end. The caller
// may change that template, and adds the template to the story by [jobs.begin].
func newEnding(w *world.World, name, slot string) (*jobs, world.Template) {
	all := &workloads{World: w, replicas: map[string]int{}}
	j := &jobs{recovery: &recovery{workloads: all}}
	j.trouble = &trouble{workloads: all, takesLeases: engine.Chance(w.Rng, .2)}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	t := anyTemplate(w, durations, name, 0, []string{slot})
	t.Gate, t.Inits, t.Restless = api.GateContainer, nil, 0
	t.Ends = engine.Between(w.Rng, time.Second, time.Minute)
	return j, t
}

// begin adds the template of the story's pods, and starts a process of enroll.
func (j *jobs) begin(t world.Template) {
	j.workloads.add(t, 0)
	j.NewEnroller("enroll-1")
	j.API.Latest = max(j.API.Latest, j.longest)
}

// run plays the whole story of one seed.
func (j *jobs) run() {
	for range 3 {
		if !j.makePods(engine.Between(j.Rng, 2*time.Minute, 6*time.Minute)) {
			return
		}
		j.Do(func() {
			j.heal()
			j.waiters.recover()
			j.killStopped()
		})
		bound := j.ending()
		if !j.Until(bound, func() bool { return len(j.Pods) == 0 }) {
			j.Do(func() { j.Violate(world.Nobody, "%v after the trouble %s has not ended", bound, j.Pods[0].Name) })
			return
		}
		if !j.waiters.afterTrouble(false) {
			return
		}
	}
	j.last()
}

// lastHolder makes a pod that holds, and demands that all pods that wait for a holder go on. Pods
// whose watch is mute do not count, because they may wait for longer.
func (j *jobs) lastHolder() {
	t := j.templates[0]
	t.Ends, t.OnBusy, t.WaitAtMost = 0, "", 0
	j.Do(func() {
		if len(j.waiters.all) > 0 {
			j.assign(j.NewPod(t, j.place()))
		}
	})
	// A waiter sees a first state of the hold within the period of one renewal. Only the next
	// renewal meets the condition.
	bound := j.settling() + j.waiters.looking() + world.Slow(2*world.BudgetOf(t.LeaseDuration).Renew)
	j.waiters.proceed(bound, func(p *world.Waiter) bool { return !j.waiters.mute(p) })
}

// ending bounds the time until every pod has ended. The pods run one after the other. A
// container that has waited for too long fails, and starts again after its back-off.
func (j *jobs) ending() time.Duration {
	t := j.templates[0]
	return j.settling() + mostDelay + mostPods*(2*t.Ends+j.settling()+t.WaitAtMost+world.MostBackOff)
}

// mostDelay bounds the time for which all pods of a key wait because the key's work failed during
// the faults. The longest such delay is five minutes, for which the slowest clock needs 5.5
// minutes. After the faults no work fails.
const mostDelay = 6 * time.Minute

// makePods makes pods for the time in the argument "last", and causes faults meanwhile. After a
// violation the result is false.
func (j *jobs) makePods(last time.Duration) bool {
	return disturbFor(j.World, last, 20*time.Second, func() {
		if len(j.Pods) < mostPods && engine.Chance(j.Rng, .4) {
			j.assign(j.NewPod(j.templates[0], j.place()))
			return
		}
		j.trouble.strike()
	})
}

// nextJob returns the Job of the next pod. Each Job has two pods, as if the second pod replaced the
// first pod.
func (j *jobs) nextJob() string {
	j.made++
	return fmt.Sprintf("job-%d", (j.made+1)/2)
}
