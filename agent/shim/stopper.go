// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// leastStop is the part of the grace that is left for the stop of the child after a slow
// preStop hook. The kubelet leaves as much.
const leastStop = 2 * time.Second

// stopper sends one child its stop signal, after the preStop hook and the delay.
type stopper struct {
	machine    Machine
	link       *link
	child      *child
	hooks      *hooks
	signals    *passing
	stopSignal syscall.Signal
	stopState
}

// stopState tells how far the stop of one child has got.
type stopState struct {
	// last is the last stop signal for the child, and lastAt is its instant; both are zero if
	// no signal came. The field "firstAt" is the instant of the first stop signal, from which the
	// time of preStop counts. The field "drained" reports that a drain ordered a stop signal,
	// and that the kubelet has not sent the same signal since.
	last            syscall.Signal
	lastAt, firstAt time.Duration
	drained         bool
	// held is the stop signal that waits; zero means none. The signal waits for the end of
	// preStop, and for the instant in the field "until". During this wait the pod leaves its
	// Services.
	held  syscall.Signal
	until time.Duration
}

// reset forgets the stop of a child that is dead.
func (s *stopper) reset() { s.stopState, s.link.state.Stopping = stopState{}, false }

// delay holds back the child's first stop signal for the given time, and reports the wait to the
// server. The preStop hook still begins immediately. A call for a later signal ends the wait.
func (s *stopper) delay(wait time.Duration) {
	if wait > 0 && s.last == 0 && s.child.pid != 0 {
		s.until = s.machine.Now() + wait
		s.link.state.Stopping = true
		s.link.tell()
		return
	}
	s.until = 0 // a second signal ends the wait
}

// extend ends the delay immediately if the new delay is zero. Any other new delay counts from the
// first stop signal. Such a delay can move the end of a running delay to a later instant, but not
// to an earlier one.
func (s *stopper) extend(delay time.Duration) {
	switch {
	case delay == 0:
		s.endDelay()
	case s.until != 0:
		s.until = max(s.until, s.firstAt+delay)
	}
}

// give sends the child a stop signal, after the child's preStop hook and the delay. If the child
// does not stop, the shim kills the child at killAt.
func (s *stopper) give(sig syscall.Signal, killAt time.Duration) {
	if s.child.pid == 0 {
		return
	}
	first := s.last == 0
	s.last, s.lastAt = sig, s.machine.Now()
	if first {
		s.firstAt = s.lastAt
		if s.hooks.onStop != nil && killAt > s.firstAt {
			s.hooks.stop(s.hookEnds)
		}
	}
	switch {
	case s.hooks.preStop == nil && s.until == 0:
		s.held = 0
		s.signals.give(sig)
	case s.held == 0, sig == s.stopSignal:
		s.held = sig
	}
}

// hookEnds ends the wait for the preStop hook, which has ended. If the delay of the stop signal still
// runs, the agent gets time to learn of the hook's end, and to end the delay.
func (s *stopper) hookEnds() {
	if s.until != 0 && s.link.conn != nil {
		s.until = max(s.until, s.machine.Now()+gate.Heard)
	}
	s.letStop()
}

// letStop ends the wait for the preStop hook.
func (s *stopper) letStop() {
	s.hooks.leavePreStop()
	s.release()
}

// endDelay ends the delay of the stop signal.
func (s *stopper) endDelay() {
	s.until = 0
	s.release()
}

// release sends the held stop signal, unless the preStop hook or the delay of the stop signal still
// holds that signal back.
func (s *stopper) release() {
	sig := s.held
	if sig == 0 || s.hooks.preStop != nil || s.until != 0 {
		return
	}
	s.held = 0
	s.signals.give(sig)
}

// hurry ends the wait for the preStop hook once the time of the hook is over.
func (s *stopper) hurry(killAt time.Duration) {
	if s.hooks.preStop != nil && s.machine.Now() >= s.hookEndsBy(killAt) {
		s.link.say("the preStop hook takes too long: stopping")
		s.until = 0
		s.letStop()
	}
}

// hookEndsBy returns the instant at which the time of the preStop hook is over, so that the child
// has some time left before killAt. If no hook runs, the result is killAt.
func (s *stopper) hookEndsBy(killAt time.Duration) time.Duration {
	if s.hooks.preStop == nil {
		return killAt
	}
	return killAt - min(leastStop, max(killAt-s.firstAt, 0)/2)
}
