// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// leashShim is a shim of a pod whose program is killed when a hold is lost. The shim keeps the
// contract of agent/gate. The shim starts the program under a grant, and kills the program before
// the deadline. After a leap the shim freezes the program. A [Pod] has the real shim and the real
// server instead.
type leashShim struct {
	of    *leashShims
	pod   *LocalPod
	id    gate.ShimID
	name  string
	rng   *rand.Rand
	began time.Duration
	// grant is the grant under which the program runs; zero before the first grant.
	grant gate.Grant
	// leaps counts the leaps of the wall clock. The field "answered" is the last leap that a
	// grant has answered.
	leaps, answered int
	// gate is the agent's end of the connection; nil for none. toAgent and toShim are the instants
	// at which the last message of each direction arrives.
	gate            *leashGate
	toAgent, toShim time.Duration
	dead            bool
}

// leashShims implements starter for a pod whose program is killed when a hold is lost.
type leashShims struct {
	pod *LocalPod
	// The field "last" is the last shim; nil before the first start. The field "gate" belongs to
	// the last process of the agent.
	last *leashShim
	gate *leashGate
}

// Leash lets shims kill the program of the pod when a hold is lost. The program obeys no answer of
// the local API.
func (p *LocalPod) Leash() { p.starter, p.Leashed = &leashShims{pod: p}, true }

// start implements starter. The shim waits for a grant.
func (l *leashShims) start() {
	p := l.pod
	p.starts++
	s := &leashShim{
		of: l, pod: p, id: gate.ShimID(fmt.Sprintf("%s-shim-%d", p.Name, p.starts)), name: fmt.Sprintf("%s/shim#%d", p.Name, p.starts),
		began: p.Node.Now(),
	}
	s.rng = p.w.Source(s.name)
	l.last = s
	p.w.Note(s.name, "shim starts")
	s.dial()
}

// lives implements starter.
func (l *leashShims) lives() bool { return l.last != nil && !l.last.dead }

// attach implements starter. The method gives a new process of the agent a leash.
func (l *leashShims) attach(a *LocalAgent, config *local.Config) {
	l.gate = newLeashGate(a, l)
	budget, err := api.NewBudget(config.LeaseDuration)
	engine.Must(err)
	of := local.NewLeash(local.LeashConfig{Gate: l.gate, Budget: budget, BootID: config.BootID, Clock: config.Clock, Random: config.Random()})
	config.Leash = of
	a.begin = func() { of.Run(a.Ctx) }
}

// hangUp implements starter. The agent's process is dead, so the shim connects to the next process.
func (l *leashShims) hangUp() {
	if s := l.last; l.lives() && s.gate != nil {
		s.gate = nil
		s.dial()
	}
}

// end implements starter. The shim ends, and the agent learns of this end by the pidfd.
func (l *leashShims) end() {
	if l.lives() {
		l.last.end()
	}
}

// leapt implements starter: the shim freezes the program after a leap of the wall clock.
func (l *leashShims) leapt() {
	if !l.lives() {
		return
	}
	l.last.leaps++
	if l.pod.Runs() {
		l.pod.Program.ices()
	}
	l.last.report()
}

// dial connects to the agent, as soon as the agent's server listens.
func (s *leashShim) dial() {
	s.pod.w.After(engine.Between(s.rng, time.Millisecond, 100*time.Millisecond), func() {
		s.whenAwake(func() {
			if p := s.pod; p.Serves() && p.Agent.handler != nil {
				s.gate, s.toAgent, s.toShim = s.of.gate, 0, 0
				s.report()
				return
			}
			s.dial()
		})
	})
}

// whenAwake runs f now. If the shim's node is suspended, whenAwake runs f as soon as the node
// goes on. If the shim is dead at that instant, f does not run.
func (s *leashShim) whenAwake(f func()) {
	s.pod.Node.whenAwake(func() {
		if !s.dead {
			f()
		}
	})
}

// report sends the state of the shim to the agent.
func (s *leashShim) report() {
	if s.gate == nil {
		return
	}
	r := gate.Report{Shim: s.id, Container: "app", Phase: gate.Waiting, Began: s.began, Connected: true, Dead: s.dead}
	if s.grant.Hold != "" {
		r.Phase, r.Hold = gate.Running, s.grant.Hold
	}
	if s.leaps != s.answered {
		r.Leap = s.leaps
	}
	g := s.gate
	s.later("up", &s.toAgent, func() { g.add(r) })
}

// later runs f when a message that is sent now arrives. The messages of one direction arrive in the
// order of their sending. The current instant seeds the delay, because goroutines of one instant
// run in any order.
func (s *leashShim) later(way string, last *time.Duration, f func()) {
	w := s.pod.w
	*last = max(*last+1, w.Now()+engine.Between(w.Source(fmt.Sprint(s.name, way, w.Now())), 50*time.Microsecond, instant))
	w.After(*last-w.Now(), f)
}

// takes handles a grant.
func (s *leashShim) takes(g gate.Grant) {
	leapt, now := s.leaps != s.answered, s.pod.Node.Now()
	switch {
	case leapt && g.Leap != s.leaps && s.grant.Hold == "", s.grant.Hold != "" && g.Hold != s.grant.Hold:
		return
	case s.grant.Hold == "" && now >= g.KillAt():
		return
	case s.grant.Hold == "":
		s.answered = s.leaps
		s.grant = g
		s.pod.runProgram()
	case g.Deadline > s.grant.Deadline:
		s.grant = g
	}
	if leapt && g.Leap == s.leaps {
		s.answered = s.leaps
		s.pod.Program.melts()
	}
	s.watch()
	s.report()
}

// watch kills the program at the instant that gate.Grant.KillAt returns, unless a later grant moves
// the deadline. If the machine is suspended at that instant, the program's work is excused, because
// shim and program wake together.
func (s *leashShim) watch() {
	deadline := s.grant.Deadline
	s.pod.Node.Ring(s.grant.KillAt(), func() {
		for _, b := range s.pod.Bidders {
			if b.work != nil && s.pod.Node.frozen && s.grant.Deadline == deadline {
				b.work.excused = true
			}
		}
		s.whenAwake(func() {
			if s.grant.Deadline == deadline {
				s.kill("kills the program: its grant has ended")
			}
		})
	})
}

// kill kills the program, and ends the container. The kubelet starts the container again.
func (s *leashShim) kill(why string) {
	if s.grant.Hold == "" {
		return
	}
	p := s.pod
	p.w.Note(s.name, "%s", why)
	took := killTime(s.rng)
	if p.Node.Now() > s.grant.KillAt()+time.Second {
		took = 0 // the machine stood still: the shim kills the program as soon as both wake
	}
	s.end()
	p.w.After(took, func() {
		p.Node.whenAwake(func() { p.KillProgram(engine.Between(p.rng, 200*time.Millisecond, 3*time.Second)) })
	})
}

// end ends the shim. The agent learns of this end by the pidfd.
func (s *leashShim) end() {
	s.dead = true
	s.report()
}

// leashGate implements [local.LeashGate]: the agent's end of the connections to the pod's shims.
type leashGate struct {
	agent   *LocalAgent
	shims   *leashShims
	reports chan gate.Report
	found   []gate.Report
	changed engine.Signal
}

func newLeashGate(a *LocalAgent, of *leashShims) *leashGate {
	g := &leashGate{agent: a, shims: of, reports: make(chan gate.Report), changed: engine.NewSignal()}
	a.pod.w.Group.Go(g.pump)
	return g
}

// add adds a report. The report replaces an earlier report of the same shim.
func (g *leashGate) add(r gate.Report) {
	g.found = last(g.found, r)
	g.changed.Give()
}

// pump passes the reports on to the agent's leash, until the agent's process is dead.
func (g *leashGate) pump() {
	for {
		var r gate.Report
		ready := func() bool {
			if len(g.found) == 0 {
				return false
			}
			r = g.found[0]
			g.found = g.found[1:]
			return true
		}
		if !g.agent.Process.Await(&g.changed, ready) {
			return
		}
		select {
		case g.reports <- r:
		case <-g.agent.Process.Ctx.Done():
			return
		}
	}
}

// Reports implements local.LeashGate.
func (g *leashGate) Reports() <-chan gate.Report { return g.reports }

// Grant implements local.LeashGate.
func (g *leashGate) Grant(id gate.ShimID, grant gate.Grant) error {
	return g.send(id, func(s *leashShim) { s.takes(grant) })
}

// Drain implements local.LeashGate.
func (g *leashGate) Drain(id gate.ShimID, reason string, _ time.Duration) error {
	return g.send(id, func(s *leashShim) { s.kill("kills the program: " + reason) })
}

// send sends an order to the shim, which then calls f.
func (g *leashGate) send(id gate.ShimID, f func(*leashShim)) error {
	if !g.agent.Enter() {
		return engine.ErrDead
	}
	defer g.agent.Leave()
	s := g.shims.last
	if s == nil || s.id != id || s.dead || s.gate != g {
		return gate.ErrNotConnected
	}
	s.later("down", &s.toShim, func() { s.whenAwake(func() { f(s) }) })
	return nil
}
