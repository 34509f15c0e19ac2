// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
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
	// programs reports that the pods wait by the local API.
	programs bool
}

// mostRuns bounds the Jobs of the story.
const mostRuns = 5

func newGathering(w *World, programs bool) *gathering {
	all := &workloads{World: w, replicas: map[string]int{}}
	g := &gathering{recovery: &recovery{workloads: all}, random: w.Source("gathering"), programs: programs}
	g.trouble = &trouble{workloads: all}
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	// No pod is made from this template. Its lease duration paces the faults.
	all.add(anyTemplate(w, durations, "web", 0, []string{api.LockLease("a")}), 0)
	w.newEnroller("enroll-1")
	w.api.Latest = max(w.api.Latest, g.longest)
	g.begin()
	g.plan()
	return g
}

// begin begins the next run, while pods of an earlier run may still exist.
func (g *gathering) begin() {
	name := fmt.Sprintf("run-%d", len(g.gathered)+1)
	of := &run{name: name, barrier: api.Barrier{Name: "warm", Size: 1 + g.random.IntN(4)}, duration: g.longest, programs: g.programs}
	of.leases, of.want = of.barrier.Leases(name), of.barrier.Size+g.random.IntN(2)
	g.gathered = append(g.gathered, of)
	g.Note("script", "%s begins, with %d pods", name, of.want)
	g.nudge()
}

// nudge tells the processes of enroll that pods have changed.
func (g *gathering) nudge() {
	for _, e := range g.enrolls {
		e.nudge()
	}
}

// plan repeats the same step after each random pause: the Jobs make pods that they lack, and a
// fault happens. In quiet times no fault happens.
func (g *gathering) plan() {
	g.After(engine.Between(g.random, time.Millisecond, 10*time.Second), func() {
		for _, of := range g.gathered {
			if len(of.pods) < of.want && (g.calm || engine.Chance(g.random, .5)) {
				g.made++
				newComer(g.World, of, fmt.Sprintf("%s-pod-%d", of.name, g.made), engine.Pick(g.random, g.nodes))
				g.nudge()
			}
		}
		if !g.calm {
			g.act()
		}
		g.plan()
	})
}

// act begins another run, or causes a fault of a pod, of a run, or of a Lease. Some calls change
// nothing.
func (g *gathering) act() {
	of := engine.Pick(g.random, g.gathered)
	pause := engine.Between(g.random, 100*time.Millisecond, 3*g.longest)
	n := g.random.IntN(9)
	switch {
	case n == 0 && len(g.gathered) < mostRuns:
		g.begin()
	case n == 1:
		g.takeLease(engine.Pick(g.random, of.leases))
	case n == 2 && len(g.gathered) > 1: // the Job is deleted, and its pods follow
		of.want = 0
		for _, p := range slices.Clone(of.pods) {
			p.delete(engine.Chance(g.random, .3))
		}
	case len(of.pods) == 0:
	case n < 5:
		engine.Pick(g.random, of.pods).delete(engine.Chance(g.random, .5))
	case n < 7:
		if p := engine.Pick(g.random, of.pods); p.runs() && p.node.up && !p.node.paused {
			p.kill()
		}
	default:
		if p := engine.Pick(g.random, of.pods); p.runs() && !p.frozen {
			p.pauseAlone(pause)
		}
	}
}

// takeLease sometimes deletes a Lease of a barrier. The record of an open barrier stays, because
// the policy on deletions protects it.
func (g *gathering) takeLease(name string) {
	if l, ok := g.api.Lease(name); ok && l.Annotations[api.OpenedAnnotation] == "" && engine.Chance(g.random, .3) {
		engine.Must(g.api.Remove("somebody", "Lease", name, "", ""))
	}
}

// run plays the story of one seed.
func (g *gathering) run() {
	for range 3 {
		if !disturbFor(g.World, engine.Between(g.Rng, 2*time.Minute, 6*time.Minute), 20*time.Second, g.trouble.one) {
			return
		}
		g.Do(func() {
			g.heal()
			for _, of := range g.gathered {
				for _, p := range of.pods {
					p.since = 0
					p.resume()
				}
			}
		})
		if !g.proceed() {
			return
		}
	}
}

// proceed demands in quiet times that no pod waits for too long. Meanwhile the Jobs make the pods
// that they lack.
func (g *gathering) proceed() bool {
	bound := g.opening()
	for end := g.Now() + 2*bound; g.Now() < end; {
		g.Do(func() {
			for _, of := range g.gathered {
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
func (g *gathering) judge(of *run, bound time.Duration) {
	waiting := slices.DeleteFunc(slices.Clone(of.pods), func(p *comer) bool { return p.passed || p.stopping || !p.runs() })
	l, ok := g.api.Lease(of.leases[0])
	open := ok && api.Opened(l.Annotations[api.OpenedAnnotation]) > 0
	for _, p := range of.pods {
		switch {
		case !slices.Contains(waiting, p), !open && len(waiting) < of.barrier.Size:
			p.since = 0
		case p.since == 0:
			p.since = g.Now()
		case g.Now()-p.since > bound:
			g.Violate(heldUp, "%s of %s has waited for %v (open: %v, %d pods wait)", p.name, of.name, bound, open, len(waiting))
		}
	}
}

// opening bounds the time in which a barrier opens, once enough pods wait in quiet times.
func (g *gathering) opening() time.Duration {
	renew := budgetOf(g.longest).Renew
	return sum([]part{
		{"a late request arrives, or a request without an answer ends", max(g.api.Latest, 20*time.Second)},
		{"enroll begins anew, makes the Leases and grants the right", 10 * time.Second},
		{"each pod looks at the Leases again", slow(2 * renew)},
		{"an unknown holder's time is over", slow(g.longest)},
		{"a pod that holds by two Leases loses one", slow(g.longest)},
		{"a pod acquires the Lease of a dead pod", slow(g.longest + 2*renew)},
		{"each holder renews, and the first one reads all Leases twice", slow(3*renew) + 10*time.Second},
		{"each pod learns of the opening", slow(2*renew) + 5*time.Second},
	})
}
