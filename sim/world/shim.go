// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// shim mirrors gate.Exec: PID 1 of its container, parent of the child, and the
// watchdog of its grant.
type shim struct {
	w         *World
	id        gate.ShimID
	container *container
	rng       *rand.Rand
	name      string

	phase gate.Phase
	hold  string
	slots []gate.SlotToken
	since time.Duration
	began time.Duration
	grant gate.Grant
	child *child
	until time.Duration // of the drain, on the node's clock

	link     *link
	stopping bool
	killing  bool
	// completed: the child came to its own end, and that was a success.
	completed bool
	dead      bool
	// forgotten: the kubelet does not know of it any more, and will not end it.
	forgotten bool
	frozen    bool
	deferred  []func()
	alarms    int // the number of the alarm that counts
	frost
	// late is by how much its alarms are: those of two containers with one
	// deadline would fall on one instant.
	late time.Duration
}

func (c *container) startShim() {
	w := c.pod.w
	w.serial++
	s := &shim{
		w: w, container: c, id: gate.ShimID(fmt.Sprintf("shim-%d", w.serial)), phase: gate.Waiting,
		since: c.pod.node.now(), began: c.pod.node.now(),
	}
	c.starts++
	s.name = fmt.Sprintf("%s/%s#%d", c.pod.name, c.name, c.starts)
	s.rng = w.source(s.name + c.pod.uid)
	s.late = between(s.rng, 0, time.Microsecond)
	c.shims = append(c.shims, s)
	w.note(s.name, "shim starts")
	s.dial()
}

// whenThawed runs f now, or as soon as the shim is no longer frozen.
func (s *shim) whenThawed(f func()) {
	switch {
	case s.dead:
	case s.isFrozen():
		s.deferred = append(s.deferred, f)
	default:
		f()
	}
}

// current reports whether the kubelet knows of the shim, and of none that is fresher.
func (s *shim) current() bool {
	all := s.container.shims
	return len(all) > 0 && all[len(all)-1] == s && !s.forgotten
}

func (s *shim) isFrozen() bool { return s.frozen || s.container.pod.node.frozen }

// dial connects as soon as an agent process listens.
func (s *shim) dial() {
	s.w.after(between(s.rng, time.Millisecond, 100*time.Millisecond), func() {
		s.whenThawed(func() {
			if s.link != nil || s.dead || s.phase == gate.Ended {
				return
			}
			if g := s.container.pod.listening(); g != nil {
				s.link = &link{gateway: g, shim: s, up: true}
				s.tell()
				return
			}
			s.dial()
		})
	})
}

func (s *shim) lostLink(l *link) {
	if s.link != l {
		return
	}
	s.link = nil
	if s.phase == gate.Ended {
		s.exit()
		return
	}
	s.dial()
}

func (s *shim) tell() {
	if s.link != nil && s.link.up {
		s.link.toAgent(state{
			id: s.id, container: s.container.name, phase: s.phase, hold: s.hold, slots: s.slots, since: s.since,
			completed: s.completed, leap: s.leap, began: s.began,
		})
	}
}

func (s *shim) enter(p gate.Phase) {
	s.phase, s.since = p, s.container.pod.node.now()
	s.tell()
}

// take does what the agent's end orders, as the phase has it.
func (s *shim) take(o order) {
	switch s.phase {
	case gate.Waiting:
		if o.grant == nil {
			s.over(o.hold)
		} else if s.admits(o.grant) {
			s.grant = *o.grant
			s.answer(o.grant)
			s.start()
		}
	case gate.Running, gate.Draining:
		s.extend(o.grant)
		if o.grant == nil && o.hold == s.hold {
			s.drain(o.grace)
		}
	case gate.Ended:
	}
}

func (s *shim) over(hold string) {
	s.hold, s.slots, s.completed = hold, nil, false
	s.enter(gate.Waiting)
}

func (s *shim) admits(g *gate.Grant) bool {
	n := s.container.pod.node
	return g.BootID == n.boot && g.Hold != s.hold && (s.leap == 0 || g.Leap == s.leap) && n.now() < g.Deadline-g.Kill-g.Drain
}

func (s *shim) extend(g *gate.Grant) {
	if g == nil || g.Hold != s.grant.Hold {
		return
	}
	if g.Deadline > s.grant.Deadline {
		s.w.checkExtended(s.child, g)
		s.grant = *g
		s.watchdog()
	}
	s.answer(g)
}

func (s *shim) start() {
	s.hold, s.slots = s.grant.Hold, s.grant.Slots
	p := s.container.pod
	s.w.serial++
	s.child = &child{
		container: s.container, where: s.name, shim: s, name: fmt.Sprintf("child-%d", s.w.serial), hold: s.hold, slots: s.slots,
		alive: true, began: s.w.now(), stops: p.stops(s.rng),
	}
	s.w.childBegins(s.child)
	s.enter(gate.Running)
	s.watchdog()
	if s.container.init {
		s.prepare(s.child)
		return
	}
	p.live(s.child)
}

// watchdog sets the alarm for the next instant of the grant.
func (s *shim) watchdog() {
	if s.child == nil {
		return
	}
	at := s.grant.Deadline - s.grant.Kill - s.grant.Drain
	if s.phase == gate.Draining {
		at = min(s.until, s.grant.Deadline-s.grant.Kill)
	}
	s.alarms++
	alarm, c := s.alarms, s.child
	n := s.container.pod.node
	n.ring(at+s.late, func() {
		if s.alarms != alarm || s.dead || s.child != c {
			return
		}
		s.excuseIfFrozen(c)
		s.whenThawed(func() {
			switch {
			case s.alarms != alarm || s.child != c:
			case s.phase == gate.Running:
				s.drain(s.grant.Drain)
			default:
				s.killAll()
			}
		})
	})
}

// excuseIfFrozen: whoever is still frozen when its child ought to be killed is
// out of what is promised, until the child is dead.
func (s *shim) excuseIfFrozen(c *child) {
	if !s.isFrozen() {
		return
	}
	s.container.pod.node.ring(s.grant.Deadline-s.grant.Kill, func() {
		if s.child == c && s.isFrozen() {
			c.excused = true
		}
	})
}

// drain asks the child to stop; nothing cancels that.
func (s *shim) drain(grace time.Duration) {
	until := s.container.pod.node.now() + grace
	if s.phase == gate.Draining {
		s.until = min(s.until, until)
		s.watchdog()
		return
	}
	s.until = until
	s.child.drainBy = until
	s.enter(gate.Draining)
	s.w.note(s.name, "drains %s of %s within %v", s.child.name, s.hold, grace)
	if grace > 0 {
		s.stopChild()
	}
	s.watchdog()
}

// stopChild gives the child its stop signal.
func (s *shim) stopChild() {
	c := s.child
	if c == nil || c.asked || c.stops < 0 {
		return
	}
	if s.stands() {
		s.later = append(s.later, s.stopChild)
		return
	}
	c.asked = true
	s.w.after(c.stops, func() { c.ends("stops") })
}

// killAll kills what is left, reaps it, and goes on as the phase has it.
func (s *shim) killAll() {
	if s.killing || s.child == nil {
		return
	}
	s.killing = true
	c, took := s.child, s.killTime()
	if c.stuck > s.w.now() {
		// Its own end may be the better means; not for what is in
		// uninterruptible sleep.
		s.w.after(min(took, 600*time.Millisecond), func() { s.whenThawed(s.exit) })
		return
	}
	s.w.after(took, func() {
		s.whenThawed(func() {
			if s.child != c {
				return
			}
			c.dies()
			s.child, s.killing, s.later = nil, false, nil
			s.reaped()
		})
	})
}

func (s *shim) killTime() time.Duration {
	if chance(s.rng, .1) {
		return between(s.rng, time.Millisecond, 550*time.Millisecond)
	}
	return between(s.rng, 100*time.Microsecond, 20*time.Millisecond)
}

// reaped mirrors lost and ended.
func (s *shim) reaped() {
	if s.phase == gate.Draining && !s.stopping && s.container.pod.standBy {
		s.over(s.hold)
		return
	}
	s.end()
}

func (s *shim) end() {
	s.enter(gate.Ended)
	s.w.after(between(s.rng, 500*time.Millisecond, 510*time.Millisecond), func() { s.whenThawed(s.exit) })
	if s.link == nil {
		s.exit()
	}
}

// terminate is SIGTERM from outside.
func (s *shim) terminate() {
	s.whenThawed(func() {
		s.stopping = true
		if s.phase == gate.Waiting {
			s.end()
			return
		}
		s.stopChild()
	})
}

// exit is the end of PID 1, by itself or by SIGKILL: the kernel kills what is
// in the namespace, and then its pidfd becomes readable.
func (s *shim) exit() {
	if s.dead {
		return
	}
	s.dead = true
	s.alarms++
	s.w.note(s.name, "shim exits")
	l := s.link
	if l != nil {
		l.close()
	}
	took := between(s.rng, 100*time.Microsecond, 20*time.Millisecond)
	if c := s.child; c != nil {
		took = s.killTime()
		if c.stuck > s.w.now() {
			took = c.stuck - s.w.now() + took
		}
	}
	s.w.after(took, s.emptied)
}

// emptied: nothing in the namespace lives.
func (s *shim) emptied() {
	if s.child != nil {
		s.child.dies()
		s.child = nil
	}
	s.w.note(s.name, "container is empty")
	if a := s.container.pod.agent(); a != nil && a.gateway != nil {
		s.w.after(between(s.rng, instant+time.Millisecond, 5*time.Millisecond), func() {
			a.whenThawed(func() { a.gateway.bury(s.id) })
		})
	}
	s.container.shimGone(s)
}

// freeze stops the shim alone; its child runs on.
func (s *shim) freeze() {
	if s.dead {
		return
	}
	s.frozen = true
	if s.child != nil {
		s.child.drainBy = 0 // nobody is there to see to it
	}
	s.w.note(s.name, "shim is frozen")
	s.w.after(between(s.rng, 2500*time.Millisecond, 3*time.Second), func() {
		if s.frozen && s.link != nil && !s.dead {
			g := s.link.gateway
			g.agent.whenThawed(func() { g.silent(s.id) })
		}
	})
}

func (s *shim) thaw() {
	if !s.frozen {
		return
	}
	s.frozen = false
	s.w.note(s.name, "shim thaws")
	s.resume()
	s.tell()
}

// resume does what fell due while the shim could not.
func (s *shim) resume() {
	if s.isFrozen() {
		return
	}
	due := s.deferred
	s.deferred = nil
	for _, f := range due {
		s.whenThawed(f)
	}
}

// prepare is what an init container does: it comes to its end soon, and mostly
// with success.
func (s *shim) prepare(c *child) {
	fails := !s.w.calm && chance(s.rng, .2)
	s.w.after(between(s.rng, 100*time.Millisecond, 3*time.Second), func() {
		if s.child == c && s.phase == gate.Running && !s.killing && !s.dead {
			s.completed = !fails
			c.ends("has prepared")
		}
	})
}
