// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// Hook is a command that belongs to the child's start or stop, as Kubernetes'
// lifecycle hooks belong to the container's.
type Hook struct {
	Command []string
	// Env is what it finds in its environment besides what the child finds, for
	// a pod of that address; nil for nothing.
	Env func(podIP string) []string
}

// The kubelet's own words. They do not say what went wrong, because
// that could be a secret; the container's log does.
const (
	postStartFailed = "PostStartHook failed"
	preStopFailed   = "PreStopHook failed"
)

// leastStop is what a preStop hook leaves the child to stop in: the kubelet's
// own minimum.
const leastStop = 2 * time.Second

// hooks are what runs around one child, and what waits for it.
type hooks struct {
	postStart, preStop *aside // while they run
	// failed: the child is to be stopped, because postStart failed.
	failed bool
	// asked is the signal that the child was last asked to stop with, at askedAt,
	// zero if nobody has; began is when it was for the first time, since preStop
	// runs only once. drained: by us, and not from outside as well.
	asked          syscall.Signal
	askedAt, began time.Duration
	drained        bool
	// held is the stop signal that waits for preStop, zero if none does.
	held syscall.Signal
}

// runHook starts a hook beside the child.
func (s *shim) runHook(h *Hook, done func(*aside, outcome)) *aside {
	env := s.environ()
	if h.Env != nil {
		env = override(env, h.Env(s.grant.PodIP))
	}
	a := &aside{argv: h.Command, env: env}
	a.done = func(o outcome) { done(a, o) }
	s.launch(a)
	return a
}

// startHook is run when the child has started.
func (s *shim) startHook() {
	if s.cfg.PostStart == nil {
		return
	}
	s.self.Starting = true
	s.hooks.postStart = s.runHook(s.cfg.PostStart, func(a *aside, o outcome) {
		if s.hooks.postStart != a {
			return
		}
		s.hooks.postStart, s.self.Starting = nil, false
		if err := o.problem(); err != nil && s.child != 0 && !s.killing {
			s.hooks.failed = true
			s.say("the postStart hook failed: %v", err)
			s.trouble(gate.ReasonPostStart, postStartFailed)
		}
		s.tell()
	})
}

// stop gives the child a stop signal, after its preStop hook. If it does not
// stop, it is killed at killAt.
func (s *shim) stop(sig syscall.Signal, killAt time.Duration) {
	if s.child == 0 {
		return
	}
	if s.frozen() {
		// Neither hook nor child does anything now.
		s.frost.keep(sig, killAt)
		return
	}
	h := &s.hooks
	first := h.asked == 0
	h.asked, h.askedAt = sig, host.Now()
	if first {
		h.began = h.askedAt
		if s.cfg.PreStop != nil && killAt > h.began {
			h.preStop = s.runHook(s.cfg.PreStop, s.preStopEnds)
		}
	}
	switch {
	case h.preStop == nil:
		s.give(sig)
	case h.held == 0, sig == s.cfg.StopSignal:
		h.held = sig
	}
}

func (s *shim) preStopEnds(a *aside, o outcome) {
	if s.hooks.preStop != a {
		return // it was not waited for
	}
	if err := o.problem(); err != nil && s.child != 0 && !s.killing {
		s.say("the preStop hook failed: %v", err)
		s.trouble(gate.ReasonPreStop, preStopFailed)
		s.tell()
	}
	s.letStop()
}

// letStop lets the stop signal go. A hook that is still running may run on.
func (s *shim) letStop() {
	sig := s.hooks.held
	s.hooks.preStop, s.hooks.held = nil, 0
	if sig != 0 {
		s.give(sig)
	}
}

// stopBy lets the stop signal go once the hook has had its time, so that the
// child, which is killed at killAt, has some as well. It returns when to look
// again.
func (s *shim) stopBy(killAt time.Duration) time.Duration {
	h := &s.hooks
	if h.preStop == nil {
		return killAt
	}
	at := killAt - min(leastStop, max(killAt-h.began, 0)/2)
	if host.Now() < at {
		return at
	}
	s.say("the preStop hook takes too long: stopping")
	s.letStop()
	return killAt
}

// trouble notes what the agent is to make an Event of.
func (s *shim) trouble(reason, message string) {
	s.self.Trouble = gate.Trouble{Serial: s.self.Trouble.Serial + 1, Reason: reason, Message: message}
}

// noChild ends what was around the child.
func (s *shim) noChild() {
	s.hooks, s.passing, s.self.Starting, s.killing = hooks{}, passing{}, false, false
	s.frost.pids, s.frost.later, s.frost.denied, s.frost.since = nil, nil, false, 0
	s.giveUpAsides()
}
