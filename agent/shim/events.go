// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// event has at most one of signal, grant, drain and dismiss. An empty event means that time has
// passed, a process has ended, or the connection has changed.
type event struct {
	signal syscall.Signal
	grant  *gate.Grant
	drain  *gate.Drain
	// dismiss orders a waiting shim to end.
	dismiss *gate.Dismiss
	notice  string
}

// next waits for an input, and does the work that every state needs: reaping, beats, the
// connection. The function returns the rest of the input as an event for the present state.
func (s *shim) next() event {
	e := s.take(s.machine.Next(false))
	s.frost.mindLeaps()
	return e
}

// take handles an input as far as the handling is the same in every state. The result is an event
// with all facts that the present state must handle; empty if there are none.
func (s *shim) take(in Input) event {
	switch in := in.(type) {
	case Tick:
		s.tick(in)
	case syscall.Signal:
		return event{signal: in}
	case Start:
		s.asides.started(in)
	case Result:
		s.asides.finished(in, s.child.killing)
	case Connection:
		// The first message on each connection is the shim's state. From now on no order of an
		// earlier connection arrives.
		s.link.conn = in.Conn
		s.link.tell()
	case gate.Order:
		return s.order(in)
	}
	return event{}
}

func (s *shim) tick(t Tick) {
	if t == Ended || s.unreaped {
		s.reap()
	}
	switch t {
	case Rang:
		s.asides.killLate()
		if !s.frost.on() {
			s.signals.giveEarly()
		}
	case Beat:
		s.link.tell()
	case Ended, ClockSet: // the method "next" looks for a leap after each input
	}
}

// order returns the server's order as an event. The function itself carries out an order to run a
// command, and returns an empty event. The event is also empty if the connection to the server has
// ended.
func (s *shim) order(o gate.Order) event {
	switch {
	case s.link.conn == nil:
		return event{}
	case o.Aside != nil:
		s.obey(o.Aside)
		return event{}
	}
	return event{grant: o.Grant, drain: o.Drain, dismiss: o.Dismiss, notice: o.Notice}
}

// mostOrdered bounds the agent's commands that run at the same time. A container has three
// probes, and the commands of two periods of one probe may overlap.
const mostOrdered = 6

// obey runs a command of the agent beside the child.
func (s *shim) obey(r *gate.Aside) {
	answer := func(o outcome) {
		s.ordered--
		ran := gate.Outcome{ID: r.ID, Code: o.code, Output: o.output, TimedOut: o.late}
		if o.err != nil {
			ran.Error = o.err.Error()
		}
		s.link.answer(ran)
	}
	s.ordered++
	switch {
	case s.child.pid == 0 || s.link.state.Phase != gate.Running || s.frost.on():
		answer(outcome{err: gate.ErrNotRunning})
	case s.ordered > mostOrdered:
		answer(outcome{err: errors.New("too much runs beside the application already")})
	default:
		env := s.child.env()
		command := Command{Argv: expandAll(r.Command, env), Env: env}
		s.asides.launch(&aside{Command: command, until: s.machine.Now() + r.Timeout, done: answer})
	}
}

// wakeAt sets the alarm to the given instant. If the shim must kill an aside, check a signal
// held back, or reap more processes before that instant, the alarm rings earlier.
func (s *shim) wakeAt(at time.Duration) {
	if s.unreaped {
		at = min(at, s.machine.Now())
	}
	at = s.asides.due(at)
	if !s.frost.on() {
		at = s.signals.due(at)
	}
	s.machine.Wake(at)
}

// mostReaped bounds the processes that the shim reaps before it checks the clock again. A program
// can make orphans as fast as the shim reaps them.
const mostReaped = 64

// reap reaps processes that have ended, and reports whether the shim has no descendant left. After
// mostReaped processes, reap leaves the rest to its next call. Orphans become the shim's children,
// so reap also reaps orphans. No other function reaps. So a process keeps its process id until this
// function has reaped the process.
func (s *shim) reap() (none bool) {
	s.unreaped = false
	for range mostReaped {
		pid, status, none := s.machine.Reap()
		switch pid {
		case 0:
			return none
		case s.child.pid:
			s.child.pid, s.child.status = 0, status
		default:
			s.asides.reaped(pid, status)
		}
	}
	s.unreaped = true
	return false
}

// killDescendants sends SIGKILL once to every descendant of the shim. An error means that the
// kernel does not let the shim kill a descendant, or that the shim cannot list its descendants.
func killDescendants(m Machine) error {
	processes, err := m.Descendants()
	if err != nil {
		return err
	}
	return linux.KillAll(processes, m.Signal)
}

// stop sends the child a stop signal. A frozen child gets the signal after the thaw. If the child
// does not stop, the shim kills the child at killAt.
func (s *shim) stop(sig syscall.Signal, killAt time.Duration) {
	if s.frost.on() {
		s.frost.keep(sig, killAt)
		return
	}
	s.stopper.give(sig, killAt)
}

// thawBy thaws the child, if the grant answers the last leap.
func (s *shim) thawBy(g *gate.Grant) {
	if s.link.state.Leap == 0 || g.Leap != s.link.state.Leap {
		return
	}
	s.link.state.Leap = 0
	for _, l := range s.frost.thaw() {
		s.stop(l.signal, l.killAt)
	}
	s.link.tell()
}

// noChild clears what the shim knew about a child that is dead.
func (s *shim) noChild() {
	s.child.killing = false
	s.hooks.reset()
	s.stopper.reset()
	s.signals.reset()
	s.frost.reset()
	s.asides.giveUp()
}
