// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import "github.com/metaparticle-io/metaparticle/agent/gate"

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

// hooks runs the hooks of one child.
type hooks struct {
	link            *link
	child           *child
	asides          *asides
	onStart, onStop *Hook

	postStart, preStop *aside // nil unless the hook runs
	// The field "failed" reports that the shim must stop the child, because its postStart hook
	// failed.
	failed bool
}

// reset forgets the hooks of a child that is dead.
func (h *hooks) reset() {
	h.postStart, h.preStop, h.failed = nil, nil, false
	h.link.state.Starting, h.link.state.PreStop = false, false
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

// stop runs the preStop hook of a child, and calls the function "done" once the hook has ended.
func (h *hooks) stop(done func()) {
	h.preStop = h.run(h.onStop, func(a *aside, o outcome) {
		if h.preStop != a {
			return // the stop signal no longer waits for this hook
		}
		if err := o.problem(); err != nil && h.child.pid != 0 && !h.child.killing {
			h.link.say("the preStop hook failed: %v", err)
			h.link.trouble(gate.ReasonPreStop, preStopFailed)
		}
		done()
	})
	h.link.state.PreStop = true
	h.link.tell()
}

// leavePreStop ends the wait for the preStop hook. A hook that still runs continues.
func (h *hooks) leavePreStop() {
	h.preStop, h.link.state.PreStop = nil, false
	h.link.tell()
}
