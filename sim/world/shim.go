// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// shimProcess is the real shim on a modelled machine. The shim is PID 1 of its
// container, the parent of the child, and the watchdog of its grant.
type shimProcess struct {
	w         *World
	id        gate.ShimID
	container *container
	rng       *rand.Rand
	name      string
	boot      string

	child *child // nil after the shim has reaped the child
	// hold is the hold of the last child. The field "told" is the last grant that the shim took.
	hold string
	told gate.Grant
	link *link // the last connection

	inputs  []shim.Input // inputs that the shim has yet to take
	changed engine.Signal
	alarm   *engine.Alarm
	rings   time.Duration // the alarm's instant
	// late is the delay of the shim's alarms. Without this delay, the alarms of two
	// containers with the same deadline would ring at the same instant.
	late time.Duration

	began time.Duration
	// code is the exit code of a shim that has ended by itself.
	code  int
	ended bool
	dead  bool
	// empty is closed once no process of the PID namespace lives.
	empty chan struct{}
	// forgotten reports that the kubelet does not know the shim any more, and will not end
	// it.
	forgotten bool
	frozen    bool
	deferred  []func()
}

// startShim starts a shim in the container.
func (c *container) startShim() {
	w, p := c.pod.w, c.pod
	s := &shimProcess{
		w: w, container: c, id: gate.ShimID(fmt.Sprintf("shim-%d", w.Number())), boot: p.node.boot,
		changed: engine.NewSignal(), empty: make(chan struct{}), began: w.Now(),
	}
	c.starts++
	s.name = fmt.Sprintf("%s/%s#%d", p.name, c.name, c.starts)
	s.rng = w.Source(s.name + p.uid)
	s.late = engine.Between(s.rng, 0, time.Microsecond)
	c.shims = append(c.shims, s)
	w.Note(s.name, "shim starts")
	cfg := shim.Config{
		Container: c.name, Command: []string{"app"}, Path: "app", StandBy: p.standBy, Grace: p.grace, Env: environment,
		MaySkip: p.onBusy == api.OnBusySkip || p.key != "", MayEndWait: p.waitAtMost > 0, Records: p.key != "", Unbounded: p.startsOnly(),
	}
	w.Group.Go(func() {
		code := shim.Run(cfg, shim.Identity{Shim: s.id, BootID: s.boot, PID1: true}, newMachine(s))
		w.Do(func() {
			if !s.dead {
				s.code, s.ended = code, true
				if s.hold == "" {
					checkCode(s)
				}
				s.exit()
			}
		})
	})
	s.beat(engine.Between(s.rng, 0, p.beat()))
	s.dial()
}

// checkCode judges the exit code of a shim that has ended without a child.
func checkCode(s *shimProcess) {
	p, l := s.container.pod, s.w.checks
	switch {
	case s.code == api.ExitWaited && l.Now()-s.began < time.Duration(float64(p.waitAtMost)/(1+skew)):
		l.Violate(skipped, "%s waited for %v, not for %v", s.name, l.Now()-s.began, p.waitAtMost)
	case s.code != 0:
	case p.key != "":
		for _, slot := range p.slots {
			if lease, _ := s.w.api.Lease(slot); !l.done.has(lease, p.key) {
				l.Violate(skipped, "%s skips the work %s, which is not done in %s", s.name, p.key, slot)
			}
		}
	case p.ran:
		l.Violate(skipped, "%s skips, and a child of its pod has begun before", s.name)
	default:
		p.skips = true
		checkSkipped(s)
	}
}

// checkSkipped demands that a child of another Job's pod lived under the slot within the last lease
// duration. The child may have died before the skip. The Lease of a dead child may look busy until
// its release or its expiry.
func checkSkipped(s *shimProcess) {
	p, l := s.container.pod, s.w.checks
	since := l.Now() - time.Duration(float64(p.duration)/(1-skew)) - time.Second
	other := func(c *child) bool { return c.pod().job != p.job && c.has(p.slots[0]) }
	lives := slices.ContainsFunc(l.alive, other)
	lived := slices.ContainsFunc(l.ends, func(e ending) bool { return e.at >= since && other(e.child) })
	if !lives && !lived {
		l.Violate(skipped, "%s skips, and no child of another Job lived under %s since %v", s.name, p.slots[0], since)
	}
}

// environment returns the child's environment, which has each slot with its token.
func environment(slots []gate.SlotToken) (env []string) {
	for _, t := range slots {
		env = append(env, t.Slot+"="+t.Token)
	}
	return env
}

// slotsOf returns the slots of a child's environment.
func slotsOf(env []string) (slots []gate.SlotToken) {
	for _, e := range env {
		slot, token, _ := strings.Cut(e, "=")
		slots = append(slots, gate.SlotToken{Slot: slot, Token: token})
	}
	return slots
}

// beat returns the period in which a shim repeats its state. The period grows with the
// lease duration, because each repetition makes the simulation slower.
func (t template) beat() time.Duration {
	return gate.BeatEvery * max(1, t.duration/(30*time.Second))
}

// beat pushes a tick after the pause, and then in each period.
func (s *shimProcess) beat(pause time.Duration) {
	s.w.After(pause, func() {
		if !s.dead {
			s.push(shim.Beat)
			s.beat(s.container.pod.beat())
		}
	})
}

// push adds an input to the queue. As in the kernel, a tick or a signal that is pending
// already is not added.
func (s *shimProcess) push(in shim.Input) {
	if s.dead {
		return
	}
	switch in.(type) {
	case shim.Tick, syscall.Signal:
		if slices.Contains(s.inputs, in) {
			return
		}
	}
	s.inputs = append(s.inputs, in)
	s.changed.Give()
}

// whenThawed runs f now, or as soon as the shim is no longer frozen.
func (s *shimProcess) whenThawed(f func()) {
	switch {
	case s.dead:
	case s.isFrozen():
		s.deferred = append(s.deferred, f)
	default:
		f()
	}
}

// current reports whether the shim is its container's newest, and the kubelet knows the
// shim.
func (s *shimProcess) current() bool {
	all := s.container.shims
	return len(all) > 0 && all[len(all)-1] == s && !s.forgotten
}

// isFrozen reports whether the shim is frozen, alone or with its node.
func (s *shimProcess) isFrozen() bool { return s.frozen || s.container.pod.node.frozen }

// dial connects to an agent process, as soon as one listens.
func (s *shimProcess) dial() {
	s.w.After(engine.Between(s.rng, time.Millisecond, 100*time.Millisecond), func() {
		s.whenThawed(func() {
			if a := s.container.pod.listening(); a != nil {
				s.connect(a)
				return
			}
			s.dial()
		})
	})
}

// takes handles an input that the shim takes from its queue. The checks learn of each grant, and of
// each order to drain. If the connection is lost, the shim connects again.
func (s *shimProcess) takes(in shim.Input) {
	switch in := in.(type) {
	case shim.Connection:
		if in.Conn == nil {
			s.dial()
		}
	case gate.Order:
		if in.Grant != nil {
			s.told = *in.Grant
			s.extends(s.child, in.Grant)
		}
		if d := in.Drain; d != nil && s.child != nil && s.child.hold == d.Hold {
			s.w.checks.checkRouted(s.child, d)
			checkUnstopped(s.w.checks, s.child, d)
			s.child.drainWithin(d.Grace)
		}
	}
}

// extends notes that a grant prolongs the deadline of the child.
func (s *shimProcess) extends(c *child, g *gate.Grant) {
	if c == nil || c.hold != g.Hold || g.Deadline <= c.grant.Deadline {
		return
	}
	s.w.checks.checkExtended(c, g)
	s.watches(c, *g)
}

// watches follows the deadline of a grant. If the shim is frozen at the instant of the
// kill, the child is excused, because docs/guarantees.md promises nothing about a frozen
// shim.
func (s *shimProcess) watches(c *child, g gate.Grant) {
	c.grant = g
	if g.Deadline == gate.Unbounded {
		return
	}
	n := s.container.pod.node
	n.Ring(g.KillAt(), func() {
		if c.alive && c.grant.Deadline == g.Deadline && s.isFrozen() {
			c.excused = true
		}
	})
}

// tells passes a message of the shim on to the checks. So the invariants also judge a drain that
// the shim begins without an order.
func (s *shimProcess) tells(message []byte) {
	st, answer, err := gate.DecodeMessage(message)
	engine.Must(err)
	if c := s.child; answer == nil && st.Phase == gate.Draining && c != nil && c.hold == st.Hold && c.drainBy == 0 && !s.frozen {
		// After a freeze the shim goes on with an earlier drain, whose grace may be
		// longer.
		c.drainWithin(max(c.grant.Drain, c.drainGrace))
	}
}

// killTime draws the time that SIGKILL takes.
func killTime(r *rand.Rand) time.Duration {
	if engine.Chance(r, .1) {
		return engine.Between(r, time.Millisecond, 550*time.Millisecond)
	}
	return engine.Between(r, 100*time.Microsecond, 20*time.Millisecond)
}

// terminate sends SIGTERM from outside of the container.
func (s *shimProcess) terminate() { s.push(syscall.SIGTERM) }

// exit ends PID 1, by itself or by SIGKILL. The kernel kills all processes in the
// namespace. Then PID 1's pidfd becomes readable.
func (s *shimProcess) exit() {
	if s.dead {
		return
	}
	s.die()
	s.w.Note(s.name, "shim exits")
	if s.link != nil {
		s.link.hangUp()
	}
	took := engine.Between(s.rng, 100*time.Microsecond, 20*time.Millisecond)
	if c := s.child; c != nil && c.alive {
		took = c.slowed(killTime(s.rng))
	}
	s.w.After(took, func() { s.container.pod.node.whenAwake(s.emptied) })
}

// die ends the goroutine of the shim.
func (s *shimProcess) die() {
	s.dead = true
	s.container.pod.node.Cancel(s.alarm)
	s.changed.Give()
}

// emptied ends the remaining processes of the namespace.
func (s *shimProcess) emptied() {
	if s.child != nil {
		s.child.dies()
		s.child = nil
	}
	s.w.Note(s.name, "container is empty")
	s.w.After(engine.Between(s.rng, 50*time.Microsecond, instant), func() { close(s.empty) })
	s.container.shimGone(s)
}

// crashes ends the shim and its child, as a crash of their machine does.
func (s *shimProcess) crashes() {
	s.die()
	if s.link != nil {
		s.link.hangUp()
	}
	if s.child != nil {
		s.child.dies()
	}
}

// freeze freezes the shim alone, and its child runs on.
func (s *shimProcess) freeze() {
	if s.dead {
		return
	}
	s.frozen = true
	if s.child != nil {
		s.child.drainBy = 0 // a frozen shim cannot drain
	}
	s.w.Note(s.name, "shim is frozen")
}

// thaw lets the frozen shim go on.
func (s *shimProcess) thaw() {
	if !s.frozen {
		return
	}
	s.frozen = false
	s.w.Note(s.name, "shim thaws")
	s.resume()
}

// resume handles the events that waited while the shim was frozen.
func (s *shimProcess) resume() {
	if s.isFrozen() {
		return
	}
	due := s.deferred
	s.deferred = nil
	for _, f := range due {
		s.whenThawed(f)
	}
	s.changed.Give()
}
