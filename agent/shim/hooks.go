// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Hook is a command that the shim runs when the child starts or stops. The kubelet itself would
// run the command only when the container starts or stops.
type Hook struct {
	Command []string
	// Env returns the variables that the hook gets in addition to those of the child. The
	// argument is the pod's address. A nil Env adds none.
	Env func(podIP string) []string
}

// The kubelet writes the same messages into its Events. The cause of a failure could contain a
// secret, so only the container's log has the cause.
const (
	postStartFailed = "PostStartHook failed"
	preStopFailed   = "PreStopHook failed"
)

// leastStop is the part of the grace that is left for the stop of the child after a slow
// preStop hook. The kubelet leaves as much.
const leastStop = 2 * time.Second

// hooks has the hooks of one child, and the stop signal that waits for them.
type hooks struct {
	machine    Machine
	link       *link
	child      *child
	asides     *asides
	signals    *passing
	stopSignal syscall.Signal
	onStart    *Hook
	onStop     *Hook

	postStart, preStop *aside // nil unless the hook runs
	stopState
}

// stopState is how far the stop of one child has got.
type stopState struct {
	// The field "failed" reports that the shim must stop the child, because its postStart hook
	// failed.
	failed bool
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

// reset forgets the hooks of a child that is dead.
func (h *hooks) reset() {
	h.postStart, h.preStop, h.stopState = nil, nil, stopState{}
	h.link.state.Starting, h.link.state.Stopping, h.link.state.PreStop = false, false, false
}

// run starts a hook beside the child.
func (h *hooks) run(hook *Hook, done func(*aside, outcome)) *aside {
	env := h.child.env()
	if hook.Env != nil {
		env = override(env, hook.Env(h.child.grant.PodIP))
	}
	a := &aside{Command: Command{Argv: hook.Command, Env: env}}
	a.done = func(o outcome) { done(a, o) }
	h.asides.launch(a)
	return a
}

// start runs the postStart hook of a child that has started.
func (h *hooks) start() {
	if h.onStart == nil {
		return
	}
	h.link.state.Starting = true
	h.postStart = h.run(h.onStart, h.postStartEnds)
}

func (h *hooks) postStartEnds(a *aside, o outcome) {
	if h.postStart != a {
		return
	}
	h.postStart, h.link.state.Starting = nil, false
	if err := o.problem(); err != nil && h.child.pid != 0 && !h.child.killing {
		h.failed = true
		h.link.say("the postStart hook failed: %v", err)
		h.link.trouble(gate.ReasonPostStart, postStartFailed)
		return
	}
	h.link.tell()
}

// delay holds back the child's first stop signal for the given time, and reports the wait to the
// desk. The preStop hook still begins immediately. A call for a later signal ends the wait.
func (h *hooks) delay(wait time.Duration) {
	if wait > 0 && h.last == 0 && h.child.pid != 0 {
		h.until = h.machine.Now() + wait
		h.link.state.Stopping = true
		h.link.tell()
		return
	}
	h.until = 0 // a second signal ends the wait
}

// extend ends the delay immediately if the new delay is zero. Any other new delay counts from the
// first stop signal. Such a delay can move the end of a running delay to a later instant, but not
// to an earlier one.
func (h *hooks) extend(delay time.Duration) {
	switch {
	case delay == 0:
		h.endDelay()
	case h.until != 0:
		h.until = max(h.until, h.firstAt+delay)
	}
}

// stop sends the child a stop signal, after the child's preStop hook and the delay. If the child
// does not stop, the shim kills the child at killAt.
func (h *hooks) stop(sig syscall.Signal, killAt time.Duration) {
	if h.child.pid == 0 {
		return
	}
	first := h.last == 0
	h.last, h.lastAt = sig, h.machine.Now()
	if first {
		h.firstAt = h.lastAt
		if h.onStop != nil && killAt > h.firstAt {
			h.preStop = h.run(h.onStop, h.preStopEnds)
			h.link.state.PreStop = true
			h.link.tell()
		}
	}
	switch {
	case h.preStop == nil && h.until == 0:
		h.held = 0
		h.signals.give(sig)
	case h.held == 0, sig == h.stopSignal:
		h.held = sig
	}
}

func (h *hooks) preStopEnds(a *aside, o outcome) {
	if h.preStop != a {
		return // the stop signal no longer waits for this hook
	}
	if err := o.problem(); err != nil && h.child.pid != 0 && !h.child.killing {
		h.link.say("the preStop hook failed: %v", err)
		h.link.trouble(gate.ReasonPreStop, preStopFailed)
	}
	if h.until != 0 && h.link.conn != nil {
		// The agent gets time to learn that preStop has ended, and to end the delay of the stop
		// signal.
		h.until = max(h.until, h.machine.Now()+gate.Heard)
	}
	h.letStop()
}

// letStop ends the wait for the preStop hook. A hook that still runs continues.
func (h *hooks) letStop() {
	h.preStop, h.link.state.PreStop = nil, false
	h.link.tell()
	h.release()
}

// endDelay ends the delay of the stop signal.
func (h *hooks) endDelay() {
	h.until = 0
	h.release()
}

// release sends the held stop signal, unless the preStop hook or the delay of the stop signal still
// holds that signal back.
func (h *hooks) release() {
	sig := h.held
	if sig == 0 || h.preStop != nil || h.until != 0 {
		return
	}
	h.held = 0
	h.signals.give(sig)
}

// hurry ends the wait for the preStop hook once the time of the hook is over.
func (h *hooks) hurry(killAt time.Duration) {
	if h.preStop != nil && h.machine.Now() >= h.hookEndsBy(killAt) {
		h.link.say("the preStop hook takes too long: stopping")
		h.until = 0
		h.letStop()
	}
}

// hookEndsBy returns the instant at which the time of the preStop hook is over, so that the child
// has some time left before killAt. If no hook runs, the result is killAt.
func (h *hooks) hookEndsBy(killAt time.Duration) time.Duration {
	if h.preStop == nil {
		return killAt
	}
	return killAt - min(leastStop, max(killAt-h.firstAt, 0)/2)
}
