// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/controller"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// changing is a story in which persons change a workload, and its controller rolls the
// changes out. The story demands that the rollout of each good version ends, and that no
// broken version is rolled out.
type changing struct {
	*recovery
	*controller.Workload
	trouble *trouble
	hands   *person
	judge   *judge
	// protects reports that old pods remain during the rollout of a broken version, and hold
	// between the turns of the new pods.
	protects bool
	// ordered reports that the controller waits until each pod is available, even if that
	// pod is broken.
	ordered bool
	// most is the largest number of times that the rollout of a good version may stop the old
	// version.
	most int
	// fixed reports that the workload is a DaemonSet, which has no replicas to choose.
	fixed bool
	// patient reports that the controller deletes no old pod because the pod is not Ready.
	patient bool
	// shared reports that the pods of another workload compete for the slot, too.
	shared bool
	// zones is the source of the outages of all old pods; nil for a story without such an outage. The
	// story draws nothing else from this source.
	zones *rand.Rand
	// back is the instant at which the old pods serve again after their last outage.
	back time.Duration
	// seen is the number of ended children at the end of the last change.
	seen int
}

// rolled is the slot for which the pods of all revisions compete.
var rolled = api.LockLease("a")

// newChanging draws the workload of the seed.
func newChanging(w *world.World) *changing {
	all := &workloads{World: w, replicas: map[string]int{}}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	t := anyTemplate(w, durations, "web", 3, []string{rolled})
	t.Gate, t.Inits, t.Restless = api.GateContainer, nil, 0
	all.add(t, 0)
	c := &changing{
		recovery: &recovery{workloads: all}, Workload: controller.New(w, t, engine.Pick(w.Rng, []int{1, 1, 2, 3, 3, 5})),
		trouble: &trouble{workloads: all, takesLeases: engine.Chance(w.Rng, .2)},
		hands:   &person{workloads: all, rng: w.Source("person")},
	}
	all.byHand = true
	if zones := w.Source("zones"); engine.Chance(zones, .3) {
		c.zones = zones
	}
	c.MinReady = engine.Pick(w.Rng, []time.Duration{0, 0, 5 * time.Second})
	c.judge = newJudge(c.Workload, rolled)
	c.Steer(c.controlled())
	c.judge.sit()
	if c.shared = engine.Chance(w.Rng, .2); c.shared {
		t.Workload = "job"
		all.add(t, 0)
		c.protects = false // a pod never asks the holder of another workload to yield
		other := controller.New(w, t, 2)
		other.Apply(engine.Pick(w.Rng, []world.Behaviour{world.GoodVersion(w.Rng), world.ExitingVersion(w.Rng)}))
		other.Steer(&controller.Deployment{Workload: other, Surge: 1})
	}
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, all.longest)
	return c
}

// controlled draws the controller of the workload.
func (c *changing) controlled() controller.Controller {
	l, n := c.Workload, c.Workload.Replicas
	switch c.Rng.IntN(6) {
	case 0:
		l.Replicas, c.protects, c.most, c.fixed, l.Template.Strict = len(l.Nodes), true, 2, true, true
		c.Note("script", "a DaemonSet")
		return controller.DaemonSet{Workload: l}
	case 1:
		c.protects, c.ordered, c.most = n > 1, true, 2
		c.Note("script", "a StatefulSet with OrderedReady, %d replicas", n)
		return &controller.StatefulSet{Workload: l, Unavailable: 1}
	case 2:
		c.protects, c.most, l.Template.Strict = n > 1, 2, true
		c.Note("script", "a StatefulSet with Parallel, %d replicas", n)
		return &controller.StatefulSet{Workload: l, Unavailable: 1, Parallel: true}
	case 3:
		d := &controller.Deployment{Workload: l, Unavailable: 1, Recreate: engine.Chance(c.Rng, .5)}
		c.protects, c.most = n > 1 && !d.Recreate, 1
		if d.Recreate {
			// The controller deletes all old pods. A deleted standby may still start the old
			// version, before the standby's agent learns of the deletion. So the old version may
			// stop twice.
			c.most = 2
		}
		c.Note("script", "a Deployment without a surge, %d replicas, recreate %v", n, d.Recreate)
		return d
	}
	d := &controller.Deployment{Workload: l, Surge: 1 + c.Rng.IntN(2), Unavailable: c.Rng.IntN(min(2, n))}
	c.protects, c.most, c.patient = true, 1, d.Unavailable == 0
	c.Note("script", "a Deployment with a surge of %d, %d unavailable, %d replicas", d.Surge, d.Unavailable, n)
	return d
}

// begins applies the first version, as a person does in the first step of the story. The method
// returns false after a violation. In some seeds the first version hangs, and a second version that
// works replaces it.
func (c *changing) begins() bool {
	if engine.Chance(c.Rng, .15) {
		c.Do(func() { c.Apply(world.Behaviour{Name: "hangs", Starts: -1, Probed: true}) })
		if !c.Pass(engine.Between(c.Rng, 20*time.Second, 2*time.Minute)) {
			return false
		}
	}
	c.Do(func() {
		c.Apply(world.GoodVersion(c.Rng))
		c.unblock()
	})
	return c.finishes("the start", 0)
}

// finishes demands that the rollout of a good version ends, and returns false after a violation.
// The argument "more" prolongs the bound after faults; 0 means that no faults preceded the rollout.
func (c *changing) finishes(after string, more time.Duration) bool {
	bound := more
	c.Do(func() { bound += c.ending() })
	if c.Until(bound, c.finished) {
		c.Do(func() {
			if more == 0 {
				c.checkOther()
			}
			c.seen = len(c.Checks.Ends)
		})
		return c.Pass(engine.Between(c.Rng, time.Second, 90*time.Second))
	}
	c.Do(func() { c.Violate(world.Unfinished, "%v after %s the rollout has not ended", bound, after) })
	return false
}

// checkOther demands that no change of the workload has stopped a pod of the other
// workload, which competes for the same slot.
func (c *changing) checkOther() {
	for _, end := range c.Checks.Ends[c.seen:] {
		p := end.Child.Pod()
		if p.Workload != c.Template.Workload && p.Shown.Stays() && p.Behaviour.Lasts == 0 {
			c.Violate(world.Stopped, "%s of %s ended, and nothing happened to its workload", end.Child.Name, p.Name)
		}
	}
}

// finished reports whether the rollout has ended, and the rollout's revision is proven. A workload
// without pods, or with a shared slot, needs no proven revision.
func (c *changing) finished() bool {
	if !c.Complete() || c.Workload.Replicas == 0 || c.shared {
		return c.Complete()
	}
	lease, ok := c.API.Lease(rolled)
	return ok && world.RolloutOf(lease).Proven.Same(c.Newest.Stamp)
}

// ending bounds the time in which the rollout of a good version ends.
func (c *changing) ending() time.Duration {
	step := sum([]part{
		{"an old pod ends", c.grace + world.Left + world.MostUntold},
		{"a pod starts, and may be in its back-off", 5*time.Second + world.MostBackOff},
		{"a pod is available", c.MinReady + world.MostStart + time.Second},
		{"the controllers see that", 10 * controller.MostIdle},
	})
	rounds := 1 + max(c.Workload.Replicas, len(c.All()))
	return sum([]part{
		{"a pod holds again", c.settling()},
		{"the turn of an earlier revision ends", c.judge.turn()},
		{"each holder serves before it yields, at most to two revisions", 3 * world.Slow(world.Rest+world.Proof+world.Again)},
		{"the pods are replaced", time.Duration(rounds) * step},
	})
}

// improves applies a good version, and demands that its rollout does not stop the old version too
// often. If another workload shares the slot, the function does not count the stops. After a
// violation the function returns false.
func (c *changing) improves() bool {
	before, most := 0, c.most
	c.Do(func() {
		if before = len(c.Checks.Ends); c.replacesRestarting() {
			most = c.Workload.Replicas
		}
		c.Apply(world.GoodVersion(c.Rng))
	})
	if !c.finishes("a good version", 0) {
		return false
	}
	c.Do(func() {
		holds := map[string]bool{}
		for _, end := range c.Checks.Ends[before:] {
			if r := end.Child.Pod().Revision; r.Workload == c.UID && !r.Same(c.Newest.Stamp) {
				holds[end.Child.Hold] = true
			}
		}
		if len(holds) > most && !c.shared {
			c.Violate(world.StopsOften, "a good rollout has stopped the old version %d times, not %d", len(holds), most)
		}
	})
	return true
}

// breaks applies a broken version. Then a person undoes the change, or mends the version. With some
// workloads a broken version leaves no old pod, or the controller may delete old pods during a
// handover. For such a workload, breaks applies a good version instead. After a violation the
// function returns false.
func (c *changing) breaks() bool {
	before := c.Newest
	if !c.protects || c.replacesRestarting() {
		return c.improves()
	}
	c.Do(func() {
		c.Apply(world.BrokenVersion(c.Rng))
		c.judge.begin()
	})
	last := engine.Between(c.Rng, time.Minute, 6*time.Minute)
	if c.Seed%16 == 3 {
		last = 150 * time.Minute
	}
	if engine.Chance(c.Rng, .5) {
		if !c.Pass(engine.Between(c.Rng, time.Second, 5*time.Second)) {
			return false
		}
		c.Do(c.evicts)
	}
	for end := c.Now() + last; c.Now() < end; {
		if !c.Pass(engine.Between(c.Rng, time.Second, last/3)) {
			return false
		}
		c.Do(c.meddles)
	}
	c.Do(func() { c.judge.on = false })
	if engine.Chance(c.Rng, .2) && !c.abandons() {
		return false
	}
	c.Do(func() {
		if engine.Chance(c.Rng, .5) {
			c.Again(before)
		} else {
			c.Apply(world.GoodVersion(c.Rng))
		}
		c.unblock()
	})
	return c.finishes("a broken version", 0)
}

// abandons deletes all old pods while a broken version stalls the rollout. Then the function
// demands that the broken version takes the slot, although its turns have failed. A version
// without an image cannot take the slot, so the function demands nothing of it. After a violation
// the function returns false.
func (c *changing) abandons() bool {
	from, bound := c.Now(), time.Duration(0)
	c.Do(func() {
		for _, r := range c.Revisions {
			if !r.Behaviour.Broken() {
				r.Replicas = 0
			}
		}
		for _, p := range c.judge.olds() {
			p.Shown.Delete()
		}
		bound = c.ending() + world.Slow(world.LastResort)
	})
	began := func(one *world.Child) bool { return one.Began > from && one.Pod().Behaviour.Broken() }
	taken := func() bool {
		ended := func(e world.Ending) bool { return began(e.Child) }
		return slices.ContainsFunc(c.Checks.Alive, began) || slices.ContainsFunc(c.Checks.Ends, ended)
	}
	if c.Newest.Behaviour.Imageless || c.Until(bound, taken) {
		return true
	}
	c.Do(func() { c.Violate(world.Nobody, "%v after the last old pod is gone nobody holds %s", bound, rolled) })
	return false
}

// replacesRestarting reports whether the controller may delete old pods during a handover.
// If the template's StandBy is false, the old holder's shim ends with its child at a handover. The
// kubelet then restarts the container, and meanwhile the pod is not Ready. A strict controller
// deletes each old pod that is not Ready.
func (c *changing) replacesRestarting() bool {
	return c.Workload.Template.Strict && !c.Workload.Template.StandBy
}

// unblock deletes the pods for which a StatefulSet with OrderedReady waits in vain. In a
// real cluster a person has to delete them.
func (c *changing) unblock() {
	if !c.ordered {
		return
	}
	for _, p := range c.All() {
		if !c.Updated(p) && !p.Shown.IsReady() {
			p.Shown.Delete()
		}
	}
}

// evicts deletes the holder, if another old pod can take the slot.
func (c *changing) evicts() {
	if holder, _ := c.judge.replaceable(); holder != nil {
		c.Note("script", "%s is evicted", holder.Name)
		c.judge.excused++
		holder.Shown.Delete()
	}
}

// meddles disturbs or changes the workload while a broken version stalls the rollout. Another
// broken version follows only if several old pods are left. Otherwise a Deployment might delete the
// last old pod, because a Deployment with a new template deletes old pods that are not Ready. An
// old pod may be not Ready because it stops or starts.
func (c *changing) meddles() {
	if c.Now() < c.back {
		return // a Deployment with a new template would delete the old pods, which are not Ready
	}
	if c.zones != nil && c.patient && engine.Chance(c.zones, .5) {
		c.loses()
		return
	}
	switch n := c.Rng.IntN(6); {
	case n < 2:
		c.evicts()
	case n == 2:
		c.cuts()
	case n == 3 && len(c.judge.olds()) > 1:
		c.Apply(world.BrokenVersion(c.Rng))
	case n == 4:
		c.Again(c.Newest)
	}
}

// loses ends the agents of all old pods, whose containers are in their back-off for a while. Then a
// pod of the broken version takes the free slot, and an old pod must get the slot back.
func (c *changing) loses() {
	last := engine.Between(c.zones, 80*time.Second, 3*time.Minute)
	olds := c.judge.olds()
	c.Note("script", "the agents of %d old pods are in their back-off for %v", len(olds), last)
	for _, p := range olds {
		if a := p.Agent(); a != nil {
			a.Kill()
			c.After(last, p.RestartAgent)
		}
	}
	c.judge.excused += len(olds)
	c.judge.disturbed(last + c.settling())
	c.back = c.Now() + last + c.settling()
}

// cuts takes the holder's node off the network for a while, if an old pod on another node can take
// the slot. Before the first turn of the broken version the function does nothing, because that
// version could then take the slot before the old pod.
func (c *changing) cuts() {
	last := engine.Between(c.Rng, time.Second, time.Minute)
	holder, others := c.judge.replaceable()
	elsewhere := func(p *world.Pod) bool { return p.Node != holder.Node && c.Available(p) }
	if holder == nil || c.judge.turns[c.Newest.Stamp].count == 0 || !slices.ContainsFunc(others, elsewhere) {
		return
	}
	holder.Node.Cut(true, true)
	c.judge.excused++
	c.judge.disturbed(last + c.settling())
	c.After(last, holder.Node.Heal)
}
