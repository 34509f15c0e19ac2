// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// localFaults causes faults of programs, and of the agents that serve them. The faults draw from a
// separate random source.
type localFaults struct {
	*World
	random  *rand.Rand
	longest time.Duration // the longest lease duration
}

func newLocalFaults(w *World, longest time.Duration) *localFaults {
	f := &localFaults{World: w, random: w.Source("local faults"), longest: longest}
	f.plan()
	return f
}

// plan causes a fault of a random pod after each random pause, except in quiet times.
func (f *localFaults) plan() {
	f.After(engine.Between(f.random, time.Millisecond, 10*time.Second), func() {
		if p := engine.Pick(f.random, f.locals); !f.calm && p.node.up && !p.node.paused {
			f.act(p)
		}
		f.plan()
	})
}

// act causes a fault of one pod. Some calls change nothing.
func (f *localFaults) act(p *localPod) {
	r := f.random
	short, long := engine.Between(r, 10*time.Millisecond, 2*time.Second), engine.Between(r, 100*time.Millisecond, 3*f.longest/2)
	back := engine.Pick(r, []time.Duration{short, long})
	b := engine.Pick(r, p.bidders)
	switch n := r.IntN(10); {
	case n == 0:
		p.killAgent(back)
	case n == 1:
		p.killProgram(back)
	case n == 2 && p.runs() && !p.program.frozen:
		p.program.freezeAlone(long)
	case n == 3 && p.serves() && !p.agent.frozen:
		p.agent.freezeAlone()
		f.After(long, p.agent.thawAlone)
	case n <= 5 && b.call != nil && b.program == p.program && !b.program.still():
		b.disconnect(short)
	case n == 6:
		f.silence(p)
	case n == 7 && p.serves():
		p.agent.terminate()
	case n == 8:
		f.pauseAndCut(p.node, long)
	case n == 9:
		p.killProgram(back)
		p.killAgent(short)
	}
}

// silence makes the open watches of the agent carry no event any more.
func (f *localFaults) silence(p *localPod) {
	for _, s := range p.agent.Watches() {
		f.Note(p.name, "its watch falls silent")
		s.Mute = true
	}
}

// pauseAndCut pauses a machine, which has no network when it goes on.
func (f *localFaults) pauseAndCut(n *node, last time.Duration) {
	n.pause()
	f.After(last, func() {
		n.unpause()
		n.cut(true, true)
		f.After(last, func() { n.cutOut, n.cutIn = false, false; f.Note(n.name, "is connected again") })
	})
}

// recover ends all faults of agents and programs. Then the kubelet starts the processes that are
// missing.
func (f *localFaults) recover() {
	for _, p := range f.locals {
		if p.runs() {
			p.program.thawAlone()
		}
		if p.serves() {
			p.agent.thawAlone()
		}
		if p.serves() && p.agent.stopped {
			p.agent.kill()
		}
		p.boot()
	}
}
