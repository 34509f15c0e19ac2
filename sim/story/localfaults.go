// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// localFaults causes faults of programs, and of the agents that serve them. The faults draw from a
// separate random source.
type localFaults struct {
	*world.World
	random  *rand.Rand
	longest time.Duration // the longest lease duration
}

func newLocalFaults(w *world.World, longest time.Duration) *localFaults {
	f := &localFaults{World: w, random: w.Source("local faults"), longest: longest}
	f.plan()
	return f
}

// plan causes faults of random pods at random times, except in quiet times.
func (f *localFaults) plan() {
	f.After(engine.Between(f.random, time.Millisecond, 10*time.Second), func() {
		if p := engine.Pick(f.random, f.Locals); !f.Calm && p.Node.Up && !p.Node.Paused {
			f.act(p)
		}
		f.plan()
	})
}

// act causes a fault of one pod. Some calls change nothing.
func (f *localFaults) act(p *world.LocalPod) {
	r := f.random
	short, long := engine.Between(r, 10*time.Millisecond, 2*time.Second), engine.Between(r, 100*time.Millisecond, 3*f.longest/2)
	back := engine.Pick(r, []time.Duration{short, long})
	b := engine.Pick(r, p.Bidders)
	switch n := r.IntN(10); {
	case n == 0:
		p.KillAgent(back)
	case n == 1:
		p.KillProgram(back)
	case n == 2 && p.Runs() && !p.Program.FrozenAlone:
		p.Program.FreezeAlone(long)
	case n == 3 && p.Serves() && !p.Agent.FrozenAlone:
		p.Agent.FreezeAlone()
		f.After(long, p.Agent.ThawAlone)
	case n <= 5 && b.Call != nil && b.Program == p.Program && !b.Program.Frozen():
		b.Disconnect(short)
	case n == 6 && p.Agent != nil:
		f.silence(p)
	case n == 7 && p.Serves():
		p.Agent.Terminate()
	case n == 8:
		f.pauseAndCut(p.Node, long)
	case n == 9:
		p.KillProgram(back)
		p.KillAgent(short)
	}
}

// silence makes the open watches of the pod's agent deliver no event any more.
func (f *localFaults) silence(p *world.LocalPod) {
	for _, s := range p.Agent.Watches() {
		f.Note(p.Name, "its watch falls silent")
		s.Mute = true
	}
}

// pauseAndCut pauses a machine for the time in the argument "last". Then the machine goes on, but
// has no network for the same time.
func (f *localFaults) pauseAndCut(n *world.Node, last time.Duration) {
	n.Pause()
	f.After(last, func() {
		if !n.Paused {
			return // the pause has ended with all other faults, and no further fault may begin
		}
		n.Unpause()
		n.Cut(true, true)
		f.After(last, func() { n.CutOut, n.CutIn = false, false; f.Note(n.Name, "is connected again") })
	})
}

// recover ends all faults of agents and programs. Then the kubelet starts the processes that are
// missing.
func (f *localFaults) recover() {
	for _, p := range f.Locals {
		if p.Runs() {
			p.Program.ThawAlone()
		}
		if p.Serves() {
			p.Agent.ThawAlone()
		}
		if p.Serves() && p.Agent.Stopped {
			p.Agent.Kill()
		}
		p.Boot()
	}
}
