// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// leashShim is a shim of a pod whose program is killed when a hold is lost. The shim keeps the
// contract of agent/gate: it starts the program under a grant, kills the program at the deadline,
// and freezes the program after a leap. The other stories run the real shim and the real desk.
type leashShim struct {
	pod   *localPod
	id    gate.ShimID
	name  string
	rng   *rand.Rand
	began time.Duration
	// grant is the grant under which the program runs; zero before the first grant.
	grant gate.Grant
	// leaps counts the leaps of the wall clock. The field answered is the last leap that a grant
	// has answered.
	leaps, answered int
	// agent is the process to which the shim is connected; nil for none. toAgent and toShim are
	// the instants at which the last message of each direction arrives.
	agent           *localAgent
	toAgent, toShim time.Duration
	dead            bool
}

// startShim starts the shim of the pod's container. The shim waits for a grant.
func (p *localPod) startShim() {
	p.starts++
	s := &leashShim{
		pod: p, id: gate.ShimID(fmt.Sprintf("%s-shim-%d", p.name, p.starts)), name: fmt.Sprintf("%s/shim#%d", p.name, p.starts),
		began: p.node.now(),
	}
	s.rng = p.w.source(s.name)
	p.shim = s
	p.w.note(s.name, "shim starts")
	s.dial()
}

// dial connects to the agent, as soon as its desk listens.
func (s *leashShim) dial() {
	s.pod.w.after(between(s.rng, time.Millisecond, 100*time.Millisecond), func() {
		s.whenAwake(func() {
			if p := s.pod; p.serves() && p.agent.handler != nil {
				s.agent, s.toAgent, s.toShim = p.agent, 0, 0
				s.report()
				return
			}
			s.dial()
		})
	})
}

// whenAwake runs f unless the shim is dead: now, or when its machine goes on.
func (s *leashShim) whenAwake(f func()) {
	s.pod.node.whenAwake(func() {
		if !s.dead {
			f()
		}
	})
}

// hangUp notes that the agent's process is dead.
func (s *leashShim) hangUp() {
	if s != nil && !s.dead && s.agent != nil {
		s.agent = nil
		s.dial()
	}
}

// report sends the state of the shim to the agent.
func (s *leashShim) report() {
	if s.agent == nil {
		return
	}
	r := gate.Report{Shim: s.id, Container: "app", Phase: gate.Waiting, Began: s.began, Connected: true, Dead: s.dead}
	if s.grant.Hold != "" {
		r.Phase, r.Hold = gate.Running, s.grant.Hold
	}
	if s.leaps != s.answered {
		r.Leap = s.leaps
	}
	a := s.agent
	s.later("up", &s.toAgent, func() { a.gate.add(r) })
}

// later runs f when a message arrives that is sent now. The messages of one direction arrive in
// the order of their sending. The current instant seeds the delay, because goroutines of one
// instant run in any order.
func (s *leashShim) later(way string, last *time.Duration, f func()) {
	w := s.pod.w
	*last = max(*last+1, w.now()+between(w.source(fmt.Sprint(s.name, way, w.now())), 50*time.Microsecond, instant))
	w.after(*last-w.now(), f)
}

// takes handles a grant.
func (s *leashShim) takes(g gate.Grant) {
	leapt, now := s.leaps != s.answered, s.pod.node.now()
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
		s.pod.program.melts()
	}
	s.watch()
	s.report()
}

// watch kills the program at the end of the present grant, unless another grant prolongs it. If the
// machine is suspended at that instant, its work is excused: shim and program wake together.
func (s *leashShim) watch() {
	deadline := s.grant.Deadline
	s.pod.node.ring(s.grant.KillAt(), func() {
		for _, b := range s.pod.bidders {
			if b.work != nil && s.pod.node.frozen && s.grant.Deadline == deadline {
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
	p.w.note(s.name, "%s", why)
	took := killTime(s.rng)
	if p.node.now() > s.grant.KillAt()+time.Second {
		took = 0 // the machine stood still: shim and program go on at the same instant
	}
	s.end()
	p.w.after(took, func() {
		p.node.whenAwake(func() { p.killProgram(between(p.rng, 200*time.Millisecond, 3*time.Second)) })
	})
}

// end ends the shim. The agent learns of that by the pidfd.
func (s *leashShim) end() {
	if s != nil && !s.dead {
		s.dead = true
		s.report()
	}
}

// leapt freezes the program after a leap of the wall clock.
func (s *leashShim) leapt() {
	if s == nil || s.dead {
		return
	}
	s.leaps++
	if s.pod.runs() {
		s.pod.program.ices()
	}
	s.report()
}

// ices freezes the program until the leash lets it go on.
func (g *program) ices() {
	g.iced = true
	g.w.note(g.where, "program is frozen by its shim")
	g.process.freeze()
}

// melts undoes ices. From now on the last answers count as answers after the leap.
func (g *program) melts() {
	if !g.iced || g.dead {
		return
	}
	g.iced = false
	g.w.note(g.where, "program goes on")
	for _, b := range g.pod.bidders {
		if b.work != nil {
			b.work.toldAt = g.w.now()
		}
	}
	if !g.frozen && !g.pod.node.frozen {
		g.goOn()
	}
}

// leashGate is the end of a shim's connection in a process of the agent.
type leashGate struct {
	agent   *localAgent
	reports chan gate.Report
	found   []gate.Report
	changed signal
}

func newLeashGate(a *localAgent) *leashGate {
	g := &leashGate{agent: a, reports: make(chan gate.Report), changed: newSignal()}
	a.process.w.group.Go(g.pump)
	return g
}

// add adds a report. The report replaces an earlier one of the same shim.
func (g *leashGate) add(r gate.Report) {
	g.found = last(g.found, r)
	g.changed.give()
}

// pump passes the reports on to the reader, until the process is dead.
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
		if !g.agent.process.await(&g.changed, ready) {
			return
		}
		select {
		case g.reports <- r:
		case <-g.agent.process.ctx.Done():
			return
		}
	}
}

// Reports implements leash.Gate.
func (g *leashGate) Reports() <-chan gate.Report { return g.reports }

// Grant implements leash.Gate.
func (g *leashGate) Grant(id gate.ShimID, grant gate.Grant) error {
	return g.send(id, func(s *leashShim) { s.takes(grant) })
}

// Drain implements leash.Gate.
func (g *leashGate) Drain(id gate.ShimID, reason string, _ time.Duration) error {
	return g.send(id, func(s *leashShim) { s.kill("kills the program: " + reason) })
}

// send sends an order to the shim, which then calls f.
func (g *leashGate) send(id gate.ShimID, f func(*leashShim)) error {
	if !g.agent.enter() {
		return errDead
	}
	defer g.agent.process.w.mu.Unlock()
	s := g.agent.pod.shim
	if s == nil || s.id != id || s.dead || s.agent != g.agent {
		return gate.ErrNotConnected
	}
	s.later("down", &s.toShim, func() { s.whenAwake(func() { f(s) }) })
	return nil
}
