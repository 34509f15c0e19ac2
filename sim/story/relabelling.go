// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// clerk writes on Leases again and again, beside the faults of a story, and changes nothing of their
// holds. A person labels Leases, or etcd is encrypted with a new key. The random source of the clerk
// is separate, so the draws of the story stay the same.
type clerk struct {
	*world.World
	rng *rand.Rand
}

func newClerk(w *world.World) *clerk { return &clerk{w, w.Source("clerk")} }

// later plans the clerk's next writes, and calls itself after them. In quiet times the clerk writes
// nothing, because each write lets the standbys wait for another lease duration.
func (c *clerk) later() {
	c.After(engine.Between(c.rng, 0, rhythm(c.World)), func() {
		for _, name := range c.API.Names("Lease") {
			if !c.Calm && engine.Chance(c.rng, .5) {
				c.label(name)
			}
		}
		c.later()
	})
}

// rhythm returns a third of the longest duration in a Lease, but ten seconds at least. With long leases
// the times of faults are long, too.
func rhythm(w *world.World) time.Duration {
	longest := 30
	for _, name := range w.API.Names("Lease") {
		if l, ok := w.API.Lease(name); ok {
			longest = max(longest, l.DurationSeconds)
		}
	}
	return time.Duration(longest) * time.Second / 3
}

// label writes a label of the Lease, which gets another resourceVersion.
func (c *clerk) label(name string) {
	c.API.Rewrite("a clerk", name, func(l *apiserver.Lease) {
		l.Labels["team"] = strconv.Itoa(c.rng.IntN(1000))
		c.Note("a clerk", "labels %s", name)
	})
}

// asking is a story of dead pods that had wished for their turns. After each time of faults, pods of a
// newer revision say their wish and die. Then the clerk labels the next Lease, and the holder must not
// yield.
type asking struct {
	*rolling
	clerk *clerk
}

// run plays the story of one seed.
func (a asking) run() {
	bound := a.settling() + world.Slow(world.LastResort) + time.Minute
	for range 2 {
		if !a.rolls(engine.Between(a.Rng, time.Minute, 3*time.Minute)) {
			return
		}
		a.Do(func() {
			a.heal()
			a.killStopped()
			a.restart()
		})
		// The old pods have their grace, and the watches of the new pods are sound.
		if !a.Pass(a.grace+world.Left+time.Second) || !a.Until(bound, a.inUse) {
			a.Do(func() { a.stuckSlots("a restart", bound) })
			return
		}
		if !a.diesAsking() {
			return
		}
	}
}

// restart replaces all pods by pods of the newest revision.
func (a asking) restart() {
	for _, p := range a.Pods {
		p.Stop()
	}
	a.refill()
}

// diesAsking lets two pods of a newer revision say their wish and die. The holder serves for longer than
// [world.Rest], and then the clerk labels the next Lease. From the death on no child may end. Sometimes
// the agents restart in between.
func (a asking) diesAsking() bool {
	if !a.Pass(world.Slow(world.Rest)) || !a.asked() {
		return false
	}
	ends := a.ends()
	if !a.Pass(world.Slow(world.Again+world.Rest) + a.settling()) {
		return false
	}
	if engine.Chance(a.clerk.rng, .5) {
		a.Do(a.restartAgents)
	}
	for range 10 {
		if !a.Pass(engine.Between(a.clerk.rng, time.Second, 20*time.Second)) {
			return false
		}
		a.Do(func() { a.clerk.label(api.NextLease(a.slots[0])) })
	}
	if a.ends() > ends {
		a.Do(func() {
			a.Violate(world.Stopped, "%s ended, and only a dead pod had wished for it", a.Checks.Ends[ends].Child.Name)
		})
		return false
	}
	return true
}

// asked starts two pods of a newer revision, and ends both by force once the next Lease has a wish of
// one of them.
func (a asking) asked() bool {
	var askers []*world.Pod
	a.Do(func() {
		next := a.templates[0]
		a.apply(&next)
		askers = append(askers, a.NewPod(next, a.place()), a.NewPod(next, a.place()))
	})
	a.Until(world.Slow(2*world.Rest), func() bool {
		l, ok := a.API.Lease(api.NextLease(a.slots[0]))
		if !ok {
			return false
		}
		words := api.ParseWords(l.Annotations[api.WordsAnnotation])
		return slices.ContainsFunc(askers, func(p *world.Pod) bool { return words.Of(p.Identity()) })
	})
	a.Do(func() {
		for _, p := range askers {
			p.Forget()
			p.Stop()
		}
	})
	verdict, _ := a.Verdict()
	return verdict == ""
}

// restartAgents ends each agent process, and the kubelet starts another one.
func (a asking) restartAgents() {
	for _, p := range a.Pods {
		if of := p.Agent(); of != nil {
			of.Kill()
			p.RestartAgent()
		}
	}
}
