// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// A step is a state of the shim: the function that it is in. It returns the
// next one, or nil and the exit code.
type step func() (step, int)

// standbyNotice is when a standby says what it waits for: a first start, with
// nobody else there, is over by then.
const standbyNotice = 10 * time.Second

// heardWithin bounds the wait for the agent's end to have heard that the child
// came to its end. It answers within a few milliseconds unless it is starved;
// after that the pidfd tells it the same.
const heardWithin = 500 * time.Millisecond

// killPatience bounds a kill where the deadline is far: a process of 16 GB is
// torn down within it (1.5 GB took 0.33 s). Then the end of PID 1, which stops
// even what forks faster than it is killed, is the better means.
const killPatience = 5 * time.Second

// killAgain is how long after a round of SIGKILL the next one comes, for what
// was forked in between.
const killAgain = 10 * time.Millisecond

// wait is the closed gate.
func (s *shim) wait() (step, int) {
	s.notice.Reset(standbyNotice)
	defer s.notice.Stop()
	for {
		switch e := s.next(); {
		case s.ends(e.signal):
			s.enter(gate.Ended)
			return nil, 128 + int(e.signal)
		case e.drain != nil:
			// A grant of it may be on its way, or was refused.
			s.over(e.drain.Hold)
		case e.grant != nil && s.admits(e.grant):
			s.grant = *e.grant
			s.answer(e.grant)
			return s.start, 0
		}
	}
}

// ends tells whether the signal is one that ends a standby.
func (s *shim) ends(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		return true
	default:
		return sig != 0 && sig == s.cfg.StopSignal
	}
}

// over reports that nothing lives under the hold, nor ever will in this shim.
func (s *shim) over(hold string) {
	s.noChild()
	s.self.Hold, s.self.Slots = hold, nil
	s.enter(gate.Waiting)
}

// admits tells whether a child may be started under the grant.
func (s *shim) admits(g *gate.Grant) bool {
	switch {
	case g.BootID != s.self.BootID:
		s.say("grant refused: its deadline is of another boot")
		return false
	case g.Hold == s.self.Hold:
		return false // over; the agent had not heard it yet
	case s.self.Leap != 0 && g.Leap != s.self.Leap:
		return false // from before the leap; the agent makes another
	case host.Now() >= g.DrainAt():
		if s.refused != g.Hold {
			s.say("grant refused: less is left of it than the child has to stop in")
		}
		s.refused = g.Hold
		return false
	}
	return true
}

// start opens the gate. The child may hang in its exec, on an image or volume
// that does not answer; the watchdog must not hang with it.
func (s *shim) start() (step, int) {
	started := make(chan error, 1)
	var pid int
	go func() {
		var err error
		pid, err = s.spawn()
		started <- err
	}()
	s.alarm.Set(s.grant.KillAt())
	for {
		// Nothing else is looked at: above all nothing is reaped while the
		// child's process id is not known.
		select {
		case err := <-started:
			// Not before: while it waits, the hold that it names is over.
			s.self.Hold, s.self.Slots = s.grant.Hold, s.grant.Slots
			if err != nil {
				s.say("%v", err)
				return s.end(startCode(err))
			}
			s.child, s.passing.since = pid, host.Now()
			s.startHook()
			s.enter(gate.Running)
			s.reap()
			return s.run, 0
		case <-s.beat.C:
			s.tell()
		case <-s.alarm.C:
			if host.Now() >= s.grant.KillAt() {
				s.say("ending the container, because the application has not started in time")
				return nil, ExitLost
			}
		}
	}
}

// run lasts while the child runs and the grant is extended in time.
func (s *shim) run() (step, int) {
	for s.child != 0 {
		switch {
		case host.Now() >= s.grant.DrainAt():
			s.say("the slot was not renewed in time: stopping")
			return s.drain(s.grant.Drain)
		case s.hooks.failed && !s.stopping:
			s.stopping = true
			return s.drain(s.cfg.Grace)
		}
		at := s.grant.DrainAt()
		if s.hooks.preStop != nil {
			at = min(at, s.stopBy(s.hooks.began+s.cfg.Grace))
		}
		s.wakeAt(at)
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
		if e.drain != nil && e.drain.Hold == s.self.Hold {
			s.say("stopping: %s", e.drain.Reason)
			s.stopping = s.stopping || e.drain.End
			return s.drain(e.drain.Grace)
		}
	}
	return s.ended, 0
}

// pass gives a signal to the child alone, as the kernel gave it to PID 1 alone.
func (s *shim) pass(sig syscall.Signal) {
	switch {
	case sig == 0 || sig == unix.SIGPIPE:
		// The latter only tells that the reader of the shim's own log is gone.
	case sig == unix.SIGCONT && s.frozen():
		// A SIGCONT would let the child go on; the thaw does that.
	case sig == unix.SIGTERM || sig == s.cfg.StopSignal:
		// The kubelet stops the container: its grace covers hook and stop.
		s.stopping = true
		if s.hooks.drained && sig == s.hooks.asked {
			s.hooks.drained = false // who is stopping already is not asked twice
			return
		}
		s.stop(sig, host.Now()+s.cfg.Grace)
	default:
		s.give(sig)
	}
}

// extend moves the deadline forward: never back, never under another hold.
func (s *shim) extend(g *gate.Grant) {
	if g == nil || g.Hold != s.grant.Hold || g.BootID != s.self.BootID {
		return
	}
	if g.Deadline > s.grant.Deadline {
		s.grant = *g
	}
	s.answer(g)
}

// drain asks the child to stop, if the kubelet has not just done so: many take a
// second signal for an order to drop everything. Grants go on to move the
// deadline, nothing cancels the drain.
func (s *shim) drain(grace time.Duration) (step, int) {
	until := host.Now() + grace
	s.enter(gate.Draining)
	// Without grace nothing is asked: the holder of the slot may be another.
	if grace > 0 && (s.hooks.asked != s.cfg.StopSignal || host.Now() >= s.hooks.askedAt+s.cfg.Grace) {
		s.hooks.drained = true
		s.stop(s.cfg.StopSignal, min(until, s.grant.KillAt()))
	}
	for s.child != 0 {
		killAt := min(until, s.grant.KillAt())
		if host.Now() >= killAt {
			break
		}
		s.wakeAt(s.stopBy(killAt))
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
		if e.drain != nil && e.drain.Hold == s.self.Hold {
			until = min(until, host.Now()+e.drain.Grace)
			s.stopping = s.stopping || e.drain.End
		}
	}
	return s.lost, 0
}

// lost closes the gate after a drain.
func (s *shim) lost() (step, int) {
	if !s.killAll() {
		return nil, ExitLost
	}
	if s.stopping {
		return s.end(exitCode(s.status))
	}
	if !s.cfg.StandBy {
		return s.end(ExitLost)
	}
	s.tty.Take()
	s.over(s.self.Hold)
	return s.wait, 0
}

// ended is the child's own end, and with it the container's.
func (s *shim) ended() (step, int) {
	if !s.killAll() {
		return nil, exitCode(s.status)
	}
	s.self.Completed = exitCode(s.status) == 0
	return s.end(exitCode(s.status))
}

// end reports that nothing is left, and waits a moment until that was heard:
// the agent's end hangs up.
func (s *shim) end(code int) (step, int) {
	s.noChild()
	s.enter(gate.Ended)
	until := host.Now() + heardWithin
	for s.conn != nil && host.Now() < until {
		s.alarm.Set(until)
		s.next()
	}
	return nil, code
}

// killAll kills until wait says that nothing is left. It gives up, to let the
// end of PID 1 do it, where it may not kill or time is up.
func (s *shim) killAll() bool {
	patience := host.Now() + killPatience
	s.killing = true
	for !s.reap() || s.spawning > 0 {
		err := killDescendants()
		last := min(patience, s.grant.LastResort())
		if err != nil {
			s.say("ending the container, because this may not be done here: %v", err)
			return false
		}
		if host.Now() >= last {
			s.say("ending the container, because killing what is left in it took too long")
			return false
		}
		s.wakeAt(min(last, host.Now()+killAgain))
		e := s.next()
		s.pass(e.signal)
		s.extend(e.grant)
	}
	return true
}
