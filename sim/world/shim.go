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

// ShimProcess is the real shim on a modelled machine. The shim is PID 1 of its
// container, the parent of the child, and the watchdog of its grant.
type ShimProcess struct {
	w  *World
	id gate.ShimID
	// Container is the container of the shim.
	Container *container
	rng       *rand.Rand
	// Name is the name of the shim in the history of events.
	Name string
	boot string

	Child *Child // nil after the shim has reaped the child
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
	// The field "ended" reports that the shim has ended by itself. Then the field
	// "code" is the shim's exit code.
	code  int
	ended bool
	// Dead reports that the shim has ended by itself, or has been killed.
	Dead bool
	// empty is closed once no process of the PID namespace lives.
	empty chan struct{}
	// Forgotten reports that the kubelet does not know the shim any more, and will not end
	// the shim.
	Forgotten bool
	frozen    bool
	deferred  []func()
}

// StartShim starts a shim in the container.
func (c *container) StartShim() {
	w, p := c.pod.w, c.pod
	s := &ShimProcess{
		w: w, Container: c, id: gate.ShimID(fmt.Sprintf("shim-%d", w.Number())), boot: p.Node.boot,
		changed: engine.NewSignal(), empty: make(chan struct{}), began: w.Now(),
	}
	c.starts++
	s.Name = fmt.Sprintf("%s/%s#%d", p.Name, c.name, c.starts)
	s.rng = w.Source(s.Name + p.uid)
	s.late = engine.Between(s.rng, 0, time.Microsecond)
	c.Shims = append(c.Shims, s)
	w.Note(s.Name, "shim starts")
	cfg := shim.Config{
		Container: c.name, Command: []string{"app"}, Path: "app", StandBy: p.StandBy, Grace: p.Grace, Env: environment,
		MaySkip: p.OnBusy == api.OnBusySkip || p.Key != "", MayEndWait: p.WaitAtMost > 0, Records: p.Key != "", Unbounded: p.StartsOnly(),
	}
	w.Group.Go(func() {
		code := shim.Run(cfg, shim.Identity{Shim: s.id, BootID: s.boot, PID1: true}, newMachine(s))
		w.Do(func() {
			if !s.Dead {
				s.code, s.ended = code, true
				if s.hold == "" {
					checkCode(s)
				}
				s.Exit()
			}
		})
	})
	s.beat(engine.Between(s.rng, 0, p.beat()))
	s.dial()
}

// checkCode judges the exit code of a shim that has ended without a child.
func checkCode(s *ShimProcess) {
	p, l := s.Container.pod, s.w.Checks
	switch {
	case s.code == api.ExitWaited && l.Now()-s.began < time.Duration(float64(p.WaitAtMost)/(1+Skew)):
		l.Violate(skipped, "%s waited for %v, not for %v", s.Name, l.Now()-s.began, p.WaitAtMost)
	case s.code != 0:
	case p.Key != "":
		for _, slot := range p.Slots {
			if lease, _ := s.w.API.Lease(slot); !l.done.has(lease, p.Key) {
				l.Violate(skipped, "%s skips the work %s, which is not done in %s", s.Name, p.Key, slot)
			}
		}
	case p.ran:
		l.Violate(skipped, "%s skips, and a child of its pod has begun before", s.Name)
	default:
		p.skips = true
		checkSkipped(s)
	}
}

// checkSkipped checks a shim that skips. Within the last lease duration, a child of another
// Job's pod must have lived under the slot of the shim's pod. That child may have died before
// the skip. The Lease of a dead child may look busy until its release or its expiry. A pod whose
// machine was paused since then is excused, because its clock stood still.
func checkSkipped(s *ShimProcess) {
	p, l := s.Container.pod, s.w.Checks
	since := l.Now() - time.Duration(float64(p.LeaseDuration)/(1-Skew)) - time.Second
	other := func(c *Child) bool { return c.Pod().Job != p.Job && c.Has(p.Slots[0]) }
	lives := slices.ContainsFunc(l.Alive, other)
	lived := slices.ContainsFunc(l.Ends, func(e Ending) bool { return e.At >= since && other(e.Child) })
	if !lives && !lived && p.Node.wokeAt < since {
		l.Violate(skipped, "%s skips, and no child of another Job lived under %s since %v", s.Name, p.Slots[0], since)
	}
}

// environment returns the child's environment, which has each slot with its token.
func environment(slots []api.Token) (env []string) {
	for _, t := range slots {
		env = append(env, t.Slot+"="+t.Token)
	}
	return env
}

// slotsOf returns the slots of a child's environment.
func slotsOf(env []string) (slots []SlotToken) {
	for _, e := range env {
		slot, token, _ := strings.Cut(e, "=")
		slots = append(slots, SlotToken{Slot: slot, Token: token})
	}
	return slots
}

// beat returns the period after which a shim sends its state again. The period grows with the
// lease duration, because each repetition makes the simulation slower.
func (t Template) beat() time.Duration {
	return gate.BeatEvery * max(1, t.LeaseDuration/(30*time.Second))
}

// beat pushes the tick [shim.Beat] after the time "pause", and then after each period.
func (s *ShimProcess) beat(pause time.Duration) {
	s.w.After(pause, func() {
		if !s.Dead {
			s.push(shim.Beat)
			s.beat(s.Container.pod.beat())
		}
	})
}

// push adds an input to the queue. As in the kernel, a tick or a signal that is pending
// already is not added.
func (s *ShimProcess) push(in shim.Input) {
	if s.Dead {
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
func (s *ShimProcess) whenThawed(f func()) {
	switch {
	case s.Dead:
	case s.isFrozen():
		s.deferred = append(s.deferred, f)
	default:
		f()
	}
}

// current reports whether the shim is the newest shim of its container, and the kubelet knows
// the shim.
func (s *ShimProcess) current() bool {
	all := s.Container.Shims
	return len(all) > 0 && all[len(all)-1] == s && !s.Forgotten
}

// isFrozen reports whether the shim is frozen, alone or with its node.
func (s *ShimProcess) isFrozen() bool { return s.frozen || s.Container.pod.Node.frozen }

// dial connects the shim to the pod's agent process, as soon as the agent process listens.
func (s *ShimProcess) dial() {
	s.w.After(engine.Between(s.rng, time.Millisecond, 100*time.Millisecond), func() {
		s.whenThawed(func() {
			if a := s.Container.pod.listening(); a != nil {
				s.connect(a)
				return
			}
			s.dial()
		})
	})
}

// takes handles an input that the shim takes from its queue. The checks learn of each grant, and of
// each order to drain. If the connection is lost, the shim connects again.
func (s *ShimProcess) takes(in shim.Input) {
	switch in := in.(type) {
	case shim.Connection:
		if in.Conn == nil {
			s.dial()
		}
	case gate.Order:
		if in.Grant != nil {
			s.told = *in.Grant
			s.extends(s.Child, in.Grant)
		}
		if d := in.Drain; d != nil && s.Child != nil && s.Child.Hold == d.Hold {
			s.w.Checks.checkRouted(s.Child, d.Reason)
			s.w.Checks.checkAnswered(s.Child, d.Reason)
			checkUnstopped(s.w.Checks, s.Child, d.Reason)
			s.Child.drainWithin(d.Grace)
		}
	}
}

// extends notes that a grant prolongs the deadline of the child.
func (s *ShimProcess) extends(c *Child, g *gate.Grant) {
	if c == nil || c.Hold != g.Hold || g.Deadline <= c.grant.Deadline {
		return
	}
	s.w.Checks.checkExtended(c, slotTokens(g))
	s.watches(c, *g)
}

// slotTokens returns the slots of a grant.
func slotTokens(g *gate.Grant) (slots []SlotToken) {
	for _, t := range g.Slots.List() {
		slots = append(slots, SlotToken(t))
	}
	return slots
}

// watches follows the deadline of a grant. If the shim is frozen at the instant of the
// kill, the child is excused, because docs/guarantees.md promises nothing about a frozen
// shim.
func (s *ShimProcess) watches(c *Child, g gate.Grant) {
	c.grant = g
	if g.Deadline == gate.Unbounded {
		return
	}
	n := s.Container.pod.Node
	n.Ring(g.KillAt(), func() {
		if c.Alive && c.grant.Deadline == g.Deadline && s.isFrozen() {
			c.Excused = true
		}
	})
}

// tells passes a message of the shim on to the checks. So the invariants also judge a drain that
// the shim begins without an order.
func (s *ShimProcess) tells(st gate.Report) {
	if c := s.Child; st.Phase == gate.Draining && c != nil && c.Hold == st.Hold && c.drainBy == 0 && !s.frozen {
		// After a freeze the shim goes on with an earlier drain. The grace of that drain may be
		// longer than the grace of the grant.
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
func (s *ShimProcess) terminate() { s.push(syscall.SIGTERM) }

// Exit ends the shim, which exits by itself or is killed. The shim is PID 1, so the kernel
// kills all other processes in the container's PID namespace. Then the shim's pidfd becomes
// readable.
func (s *ShimProcess) Exit() {
	if s.Dead {
		return
	}
	s.die()
	s.w.Note(s.Name, "shim exits")
	if s.link != nil {
		s.link.hangUp()
	}
	took := engine.Between(s.rng, 100*time.Microsecond, 20*time.Millisecond)
	if c := s.Child; c != nil && c.Alive {
		took = c.slowed(killTime(s.rng))
	}
	s.w.After(took, func() { s.Container.pod.Node.whenAwake(s.emptied) })
}

// die ends the goroutine of the shim.
func (s *ShimProcess) die() {
	s.Dead = true
	s.Container.pod.Node.Cancel(s.alarm)
	s.changed.Give()
}

// emptied ends the remaining processes of the container's PID namespace.
func (s *ShimProcess) emptied() {
	if s.Child != nil {
		s.Child.dies()
		s.Child = nil
	}
	s.w.Note(s.Name, "container is empty")
	s.w.After(engine.Between(s.rng, 50*time.Microsecond, instant), func() { close(s.empty) })
	s.Container.shimGone(s)
}

// crashes ends the shim and its child, as a crash of the pod's node does.
func (s *ShimProcess) crashes() {
	s.die()
	if s.link != nil {
		s.link.hangUp()
	}
	if s.Child != nil {
		s.Child.dies()
	}
}

// Freeze freezes the shim alone, and its child runs on.
func (s *ShimProcess) Freeze() {
	if s.Dead {
		return
	}
	s.frozen = true
	if s.Child != nil {
		s.Child.drainBy = 0 // a frozen shim cannot drain
	}
	s.w.Note(s.Name, "shim is frozen")
}

// Thaw lets the frozen shim go on.
func (s *ShimProcess) Thaw() {
	if !s.frozen {
		return
	}
	s.frozen = false
	s.w.Note(s.Name, "shim thaws")
	s.resume()
}

// resume handles the events that waited while the shim was frozen.
func (s *ShimProcess) resume() {
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
