// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// step is a state of the shim: the function that is running. A step returns the next step, or
// nil and the exit code.
type step func() (step, int)

// standbyNotice delays the line in the log which reports that a standby waits for the slot. If
// no other pod holds the slot, the child starts within that time, and the log has no such line.
const standbyNotice = 10 * time.Second

// killPatience bounds the time of a kill if the deadline is far away. In that time the kernel
// frees the memory of a process of 16 GB (1.5 GB took 0.33 s). After that the shim ends itself,
// because the end of PID 1 also stops processes that fork faster than the shim kills them.
const killPatience = 5 * time.Second

// wait keeps the gate closed until a grant, a Dismiss or a stop signal ends the wait.
func (s *shim) wait() (step, int) {
	notice, said := s.machine.Now()+standbyNotice, false
	s.machine.Wake(notice)
	for {
		e := s.next()
		switch {
		case s.ends(e.signal):
			s.link.enter(gate.Ended)
			return nil, 128 + int(e.signal)
		case e.drain != nil:
			// A grant of the drained hold may still arrive, or may have been refused. By
			// reporting the hold as over, the shim commits itself to start no child under that
			// hold.
			s.over(e.drain.Hold)
		case e.dismiss != nil && !s.cfg.permits(e.dismiss.Code):
			s.link.say("going on to wait: nothing permits this container to end with exit code %d", e.dismiss.Code)
		case e.dismiss != nil:
			s.link.say("ending with exit code %d, and the application was not started: %s", e.dismiss.Code, e.dismiss.Reason)
			return s.end(e.dismiss.Code)
		case e.notice != "":
			s.link.say("%s", e.notice)
		case e.grant != nil && s.admits(e.grant):
			s.child.grant = *e.grant
			s.thawBy(e.grant)
			return s.start, 0
		case !said && s.machine.Now() >= notice:
			s.sayStandby()
			said = true
		}
	}
}

func (s *shim) sayStandby() {
	if s.link.conn == nil {
		s.link.say("standing by: waiting for the agent's container to answer")
	} else {
		s.link.say("standing by: the application starts here when this pod gets the slot")
	}
}

// The method "ends" reports whether the signal ends a shim that waits.
func (s *shim) ends(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		return true
	default:
		return sig != 0 && sig == s.cfg.StopSignal
	}
}

// The method "over" reports to the server that no descendant lives under the hold, and that this
// shim starts no further child under that hold.
func (s *shim) over(hold string) {
	s.noChild()
	s.link.state.Hold, s.link.state.Slots = hold, ""
	if s.link.state.Phase == gate.Waiting {
		s.link.tell() // the shim still waits for a grant
		return
	}
	s.link.enter(gate.Waiting)
}

// The method "admits" reports whether a child may be started under the grant.
func (s *shim) admits(g *gate.Grant) bool {
	self := &s.link.state
	refuse := func(why string) bool {
		if s.refused != g.Hold { // each renewal of the hold brings another grant
			s.link.say("grant refused: %s", why)
		}
		s.refused = g.Hold
		return false
	}
	switch {
	case g.BootID != self.BootID:
		return refuse("its deadline is of another boot")
	case g.Hold == self.Hold:
		return false // this hold is over, but the agent sent the grant before it knew that
	case self.Leap != 0 && g.Leap != self.Leap:
		return false // the agent sent the grant before it knew of the leap, and will send another
	case !s.cfg.Unbounded && !g.Bounded(s.machine.Now()):
		return refuse("its deadline is farther away than a lease lasts")
	case g.StartBy != 0 && s.machine.Now() >= g.StartBy:
		return false // another pod may have the start lock by now; the agent will send another grant
	case s.machine.Now() >= g.DrainAt():
		return refuse("too little time is left in which the child could stop")
	}
	return true
}

// start opens the gate. The exec of the child may hang, on an image or volume that does not answer,
// but the watchdog must go on. Before the shim knows the child's process id, the shim reaps no
// process, because it could reap the child without noticing.
func (s *shim) start() (step, int) {
	grant, self := &s.child.grant, &s.link.state
	s.machine.Start(&Command{Path: s.cfg.Path, Argv: s.cfg.Command, Env: s.child.env(), Child: true})
	s.machine.Wake(grant.KillAt())
	for {
		switch in := s.machine.Next(true).(type) {
		case Start:
			// The shim's messages name the new hold only from now on. While the shim waited, the
			// messages named the last hold, whose child is dead.
			self.Hold, self.Slots = grant.Hold, grant.Slots
			if in.Err != nil {
				s.link.say("%v", in.Err)
				self.Failed = true
				return s.end(startCode(in.Err))
			}
			s.child.pid, s.child.began, s.signalled = in.PID, s.machine.Now(), false
			s.hooks.start()
			s.link.enter(gate.Running)
			s.reap()
			return s.run, 0
		case Tick:
			if in == Beat {
				s.link.tell()
			} else if s.machine.Now() >= grant.KillAt() {
				s.link.say("ending the container, because the application has not started in time")
				return nil, api.ExitLost
			}
		}
	}
}

// run waits until the child has ended or must be drained. Reasons for a drain are the agent's
// order, a failed postStart hook, and a grant that was not renewed in time.
func (s *shim) run() (step, int) {
	for s.child.pid != 0 {
		grant := &s.child.grant
		switch {
		case s.machine.Now() >= grant.DrainAt():
			s.link.say("the slot was not renewed in time: stopping")
			return s.drain(grant.Drain)
		case s.hooks.failed && !s.stopping:
			s.stopping = true
			return s.drain(s.cfg.Grace)
		}
		at := grant.DrainAt()
		if until := s.stopper.until; until != 0 && s.hooks.preStop == nil {
			if s.machine.Now() >= until {
				s.stopper.endDelay()
			} else {
				at = min(at, until)
			}
		}
		if s.hooks.preStop != nil {
			killAt := s.stopper.firstAt + s.cfg.Grace
			s.stopper.hurry(killAt)
			at = min(at, s.stopper.hookEndsBy(killAt))
		}
		s.wakeAt(at)
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
		if e.drain != nil && e.drain.Hold == s.link.state.Hold {
			s.link.say("stopping: %s", e.drain.Reason)
			s.stopping = s.stopping || e.drain.End
			return s.drain(e.drain.Grace)
		}
	}
	return s.ended, 0
}

// pass sends a signal to the child, but not to the child's descendants. Without a shim,
// only PID 1 of the container gets such a signal.
func (s *shim) pass(sig syscall.Signal) {
	switch {
	case sig == 0 || sig == unix.SIGPIPE:
		// Zero means that no signal came. SIGPIPE only means that the reader of the shim's log
		// has gone, so the child does not get SIGPIPE.
	case sig == unix.SIGCONT && s.frost.on():
		// SIGCONT would end the freeze too early. The thaw sends its own SIGCONT.
	case s.signals.stops(sig):
		// The kubelet stops the container. The pod's grace covers both the preStop hook and the
		// stop.
		s.stopping = true
		if s.stopper.drained && sig == s.stopper.last {
			s.stopper.drained = false // no second stop signal, because the child is stopping
			return
		}
		if !s.frost.on() && s.link.state.Phase == gate.Running {
			s.stopper.delay(s.child.grant.StopDelay)
		}
		s.stop(sig, s.machine.Now()+s.cfg.Grace)
	default:
		s.signalled = s.signalled || !slices.Contains(silent, sig)
		s.signals.give(sig)
	}
}

// silent are the signals that are never a stop signal. Any other signal may be the stop signal
// of an image that the webhook has not read.
var silent = []syscall.Signal{unix.SIGCONT, unix.SIGCHLD, unix.SIGURG}

// extend applies a further grant of the child's hold. A later deadline and the grant's delay
// replace the old ones, and the child thaws if the grant answers the last leap. A grant of another
// hold or boot has no effect. A grant whose deadline is too far away has no effect, either.
func (s *shim) extend(g *gate.Grant) {
	if g == nil || g.Hold != s.child.grant.Hold || g.BootID != s.link.state.BootID {
		return
	}
	if !s.cfg.Unbounded && !g.Bounded(s.machine.Now()) {
		return
	}
	if g.Deadline > s.child.grant.Deadline {
		s.child.grant = *g
	}
	s.child.grant.StopDelay = g.StopDelay
	s.stopper.extend(g.StopDelay)
	s.thawBy(g)
}

// drain stops the child. If the kubelet sent the stop signal less than [Config.Grace] ago, drain
// sends no second signal. After a second signal many programs end immediately, and lose work.
// Grants still prolong the deadline, but nothing cancels the drain.
func (s *shim) drain(grace time.Duration) (step, int) {
	now := s.machine.Now()
	until := now + grace
	s.link.enter(gate.Draining)
	// Without grace the child gets no stop signal, because another pod may hold the slot by
	// now.
	if grace > 0 {
		s.stopper.endDelay() // a drain does not wait until the pod has left its Services
	}
	if grace > 0 && (s.stopper.last != s.cfg.StopSignal || now >= s.stopper.lastAt+s.cfg.Grace) {
		s.stopper.drained = true
		s.stop(s.cfg.StopSignal, min(until, s.child.grant.KillAt()))
	}
	for s.child.pid != 0 {
		killAt := min(until, s.child.grant.KillAt())
		if s.machine.Now() >= killAt {
			break
		}
		s.stopper.hurry(killAt)
		s.wakeAt(s.stopper.hookEndsBy(killAt))
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
		if e.drain != nil && e.drain.Hold == s.link.state.Hold {
			until = min(until, s.machine.Now()+e.drain.Grace)
			s.stopping = s.stopping || e.drain.End
		}
	}
	return s.lost, 0
}

// The method "lost" kills all descendants after a drain. Then the shim waits for another grant,
// or the container ends.
func (s *shim) lost() (step, int) {
	if !s.killAll() {
		return nil, api.ExitLost
	}
	if s.stopping {
		return s.end(exitCode(s.child.status))
	}
	if !s.cfg.StandBy {
		return s.end(api.ExitLost)
	}
	s.machine.TakeTerminal()
	s.over(s.link.state.Hold)
	return s.wait, 0
}

// The method "ended" ends the container with the child's exit code. The child has ended by
// itself, or after a signal from outside, but not in a drain.
func (s *shim) ended() (step, int) {
	code := exitCode(s.child.status)
	if !s.killAll() {
		return nil, code
	}
	alone := !s.stopping && !s.signalled
	s.link.state.Completed = alone && code == 0
	s.link.state.Failed = alone && code != 0
	return s.end(code)
}

// The method "end" reports that no process is left, and waits a moment for the server to hang up.
// The hang-up shows that the server has the message. If the message is lost, the shim's pidfd proves
// the child's death a little later.
func (s *shim) end(code int) (step, int) {
	s.noChild()
	s.link.enter(gate.Ended)
	// If the agent is restarting, the message of a success waits for the new agent process.
	// Without the message, another pod would repeat the work. A stop signal ends the wait.
	for at := s.child.grant.DrainAt(); s.cfg.Records && s.link.state.Completed && s.link.unsent && s.machine.Now() < at; {
		s.machine.Wake(at)
		if e := s.next(); s.ends(e.signal) {
			break
		}
	}
	until := s.machine.Now() + gate.Heard
	for s.link.conn != nil && s.machine.Now() < until {
		s.machine.Wake(until)
		s.next()
	}
	return nil, code
}

// killAll kills the shim's descendants until none is left, and then returns true. The result is
// false if the kernel does not let the shim kill a descendant. The result is also false if a
// descendant is left after killPatience, or at the grant's [gate.Grant.LastResort]. Then the end
// of PID 1 kills the rest.
func (s *shim) killAll() bool {
	patience := s.machine.Now() + killPatience
	s.child.killing = true
	for !s.reap() || s.asides.spawning > 0 {
		err := killDescendants(s.machine)
		last := min(patience, s.child.grant.LastResort())
		if err != nil {
			s.link.say("ending the container, because this may not be done here: %v", err)
			return false
		}
		if s.machine.Now() >= last {
			s.link.say("ending the container, because killing what is left in it took too long")
			return false
		}
		s.wakeAt(min(last, s.machine.Now()+linux.KillAgain))
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
	}
	return true
}
