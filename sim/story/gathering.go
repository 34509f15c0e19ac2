// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// gathering is a story of Jobs whose pods start together. Several Jobs follow each other, and some
// of their pods exist at the same time. The invariants of safety must hold all the time.
// After the faults the pods of an open barrier must go on, and a barrier with enough pods must
// open.
type gathering struct {
	*recovery
	trouble *trouble
	random  *rand.Rand
	made    int
	// programs reports that the pods' programs wait at the barrier through the local API.
	programs bool
}

// mostRuns bounds the number of Jobs in the story [gathering].
const mostRuns = 5

func newGathering(w *world.World, programs bool) *gathering {
	all := &workloads{World: w, replicas: map[string]int{}}
	g := &gathering{recovery: &recovery{workloads: all}, random: w.Source("gathering"), programs: programs}
	g.trouble = &trouble{workloads: all}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	// No pod is made from this template. Its lease duration paces the faults.
	all.add(anyTemplate(w, durations, "web", 0, []string{api.LockLease("a")}), 0)
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, g.longest)
	g.begin()
	g.plan()
	return g
}

// begin begins the next run, while pods of an earlier run may still exist.
func (g *gathering) begin() {
	name := fmt.Sprintf("run-%d", len(g.Gathered)+1)
	of := &world.Run{Name: name, Barrier: api.Barrier{Name: "warm", Size: 1 + g.random.IntN(4)}, Duration: g.longest, Programs: g.programs}
	of.Leases, of.Want = of.Barrier.Leases(name), of.Barrier.Size+g.random.IntN(2)
	g.Gathered = append(g.Gathered, of)
	g.Note("script", "%s begins, with %d pods", name, of.Want)
	g.nudge()
}

// nudge tells the processes of enroll that pods have changed.
func (g *gathering) nudge() {
	for _, e := range g.Enrolls {
		e.Nudge()
	}
}

// plan repeats the same step at random times: the Jobs make pods that they lack, and a fault
// happens. In quiet times no fault happens.
func (g *gathering) plan() {
	g.After(engine.Between(g.random, time.Millisecond, 10*time.Second), func() {
		for _, of := range g.Gathered {
			if len(of.Pods) < of.Want && (g.Calm || engine.Chance(g.random, .5)) {
				g.made++
				world.NewComer(g.World, of, fmt.Sprintf("%s-pod-%d", of.Name, g.made), engine.Pick(g.random, g.Nodes))
				g.nudge()
			}
		}
		if !g.Calm {
			g.act()
		}
		g.plan()
	})
}

// act begins another run, or causes a fault of a pod, of a run, or of a Lease. Some calls change
// nothing.
func (g *gathering) act() {
	of := engine.Pick(g.random, g.Gathered)
	pause := engine.Between(g.random, 100*time.Millisecond, 3*g.longest)
	n := g.random.IntN(9)
	switch {
	case n == 0 && len(g.Gathered) < mostRuns:
		g.begin()
	case n == 1:
		g.takeLease(engine.Pick(g.random, of.Leases))
	case n == 2 && len(g.Gathered) > 1: // the Job and its pods are deleted
		of.Want = 0
		for _, p := range slices.Clone(of.Pods) {
			p.Delete(engine.Chance(g.random, .3))
		}
	case len(of.Pods) == 0:
	case n < 5:
		engine.Pick(g.random, of.Pods).Delete(engine.Chance(g.random, .5))
	case n < 7:
		if p := engine.Pick(g.random, of.Pods); p.Runs() && p.Node.Up && !p.Node.Paused {
			p.Kill()
		}
	default:
		if p := engine.Pick(g.random, of.Pods); p.Runs() && !p.FrozenAlone {
			p.PauseAlone(pause)
		}
	}
}

// takeLease sometimes deletes a Lease of a barrier. The record of an open barrier stays, because
// the policy on deletions protects it.
func (g *gathering) takeLease(name string) {
	if l, ok := g.API.Lease(name); ok && l.Annotations[api.OpenedAnnotation] == "" && engine.Chance(g.random, .3) {
		engine.Must(g.API.Remove("somebody", "Lease", name, "", ""))
	}
}

// run plays the story of one seed.
func (g *gathering) run() {
	for range 3 {
		if !disturbFor(g.World, engine.Between(g.Rng, 2*time.Minute, 6*time.Minute), 20*time.Second, g.trouble.strike) {
			return
		}
		g.Do(g.recover)
		if !g.proceed() {
			return
		}
	}
}

// recover ends all faults, also those of the pods.
func (g *gathering) recover() {
	g.heal()
	for _, of := range g.Gathered {
		for _, p := range of.Pods {
			p.Since = 0
			p.Resume()
		}
	}
}

// proceed demands in quiet times that no pod waits for too long. Meanwhile the Jobs make the pods
// that they lack.
func (g *gathering) proceed() bool {
	bound := g.opening()
	for end := g.Now() + 2*bound; g.Now() < end; {
		g.Do(func() {
			for _, of := range g.Gathered {
				g.judge(of, bound)
			}
		})
		if !g.Pass(bound / 200) {
			return false
		}
	}
	return true
}

// judge demands that no pod of the run waits for longer than the bound. The wait counts only while
// the barrier is open, or while enough pods of the run wait.
func (g *gathering) judge(of *world.Run, bound time.Duration) {
	waiting := slices.DeleteFunc(slices.Clone(of.Pods), func(p *world.Comer) bool { return p.Passed || p.Stopping || !p.Runs() })
	l, ok := g.API.Lease(of.Leases[0])
	open := ok && api.Opened(l.Annotations[api.OpenedAnnotation]) > 0
	for _, p := range of.Pods {
		switch {
		case !slices.Contains(waiting, p), !open && len(waiting) < of.Barrier.Size:
			p.Since = 0
		case p.Since == 0:
			p.Since = g.Now()
		case g.Now()-p.Since > bound:
			g.Violate(world.HeldUp, "%s of %s has waited for %v (open: %v, %d pods wait)", p.Name, of.Name, bound, open, len(waiting))
		}
	}
}

// opening bounds how long a barrier takes in quiet times. The time begins when enough pods wait,
// and ends when each of these pods has learned that the barrier is open.
func (g *gathering) opening() time.Duration {
	renew := world.BudgetOf(g.longest).Renew
	return sum([]part{
		{"a late request arrives, or a request without an answer ends", max(g.API.Latest, 20*time.Second)},
		{"enroll begins anew, makes the Leases and grants the right", 10 * time.Second},
		{"each pod looks at the Leases again", world.Slow(2 * renew)},
		{"an unknown holder's time is over", world.Slow(g.longest)},
		{"a pod that holds by two Leases loses one", world.Slow(g.longest)},
		{"a pod acquires the Lease of a dead pod", world.Slow(g.longest + 2*renew)},
		{"each holder renews, and the first one reads all Leases twice", world.Slow(3*renew) + 10*time.Second},
		{"each pod learns of the opening", world.Slow(2*renew) + 5*time.Second},
	})
}
