// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// frost holds the processes that a shim stopped after a leap of the wall clock. The machine may
// have been paused, and another pod may hold the slot by now. The agent finds out:
// only a grant that answers the leap lets the child go on.
type frost struct {
	leaps int   // so far
	pids  []int // what was stopped, parents first
	// since is the instant of the freeze; zero while nothing is frozen.
	since time.Duration
	// denied says that a process may not be frozen from here, and that people know.
	denied bool
	// later are the stop signals that wait for the thaw.
	later []stopLater
}

// stopLater is a stop signal, and when a child that does not stop is killed.
type stopLater struct {
	signal syscall.Signal
	killAt time.Duration
}

// keep keeps a stop signal until the thaw. A second one of the kind says nothing new.
func (f *frost) keep(sig syscall.Signal, killAt time.Duration) {
	if !slices.ContainsFunc(f.later, func(l stopLater) bool { return l.signal == sig }) {
		f.later = append(f.later, stopLater{sig, killAt})
	}
}

// mindLeaps freezes the child where the wall clock leapt. It is called after each
// wait, before what the wait brought is looked at.
func (s *shim) mindLeaps() {
	if s.leaps.Leapt() {
		s.leaps.Settle()
		s.frost.leaps++
		s.self.Leap = s.frost.leaps
		s.freeze()
		s.tell()
		return
	}
	if s.frozen() {
		s.freeze() // what was started meanwhile
	}
}

// frozen reports whether the child has to stand still until the agent answers.
func (s *shim) frozen() bool {
	return s.self.Leap != 0 && s.child != 0 && !s.killing
}

// freezeRounds bounds how often the shim looks for processes that were forked while
// it stopped the others. A process that is stopped forks no more, so two rounds are
// the rule; what forks faster than that is stopped at the next beat.
const freezeRounds = 10

// freeze stops everything that descends from this process, but for what somebody
// has stopped before.
func (s *shim) freeze() {
	if !s.frozen() {
		return
	}
	if len(s.frost.pids) == 0 {
		s.frost.since = host.Now()
		// First what is known without a look at all processes.
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.child)); err == nil {
			if p, ok := host.ParseStat(stat); ok {
				_, _ = s.freezeAll([]host.Process{p})
			}
		}
		s.say("the clock was set: the application stands still until the slot is known to be its own")
	}
	for range freezeRounds {
		if fresh, err := s.freezeDescendants(); err != nil && !s.frost.denied {
			s.say("the application cannot be frozen here: %v", err)
			s.frost.denied = true
		} else if fresh == 0 {
			return
		}
	}
}

// freezeDescendants freezes what runs, once, and returns how many processes that were.
func (s *shim) freezeDescendants() (fresh int, denied error) {
	processes, err := host.ReadProcesses()
	if err != nil {
		return 0, err
	}
	return s.freezeAll(host.Descendants(processes, os.Getpid()))
}

func (s *shim) freezeAll(processes []host.Process) (fresh int, denied error) {
	for _, p := range processes {
		// A first thread that has ended hides whether the others are stopped. What
		// somebody has let go on meanwhile is stopped again.
		if p.Stopped {
			continue
		}
		switch err := host.Signal(p.PID, unix.SIGSTOP); {
		case err == nil:
			if !slices.Contains(s.frost.pids, p.PID) {
				s.frost.pids = append(s.frost.pids, p.PID)
				fresh++
			}
		case !errors.Is(err, unix.ESRCH) && !p.Zombie:
			denied = fmt.Errorf("freeze process %d: %w", p.PID, err)
		}
	}
	return fresh, denied
}

// answer lets the child go on under a grant that was made after the last leap.
func (s *shim) answer(g *gate.Grant) {
	if s.self.Leap == 0 || g.Leap != s.self.Leap {
		return
	}
	s.self.Leap = 0
	s.thaw()
	s.tell()
}

// thaw lets go on what was frozen: children first, so that no parent sees a child
// that is stopped.
func (s *shim) thaw() {
	for _, pid := range slices.Backward(s.frost.pids) {
		_ = host.Signal(pid, unix.SIGCONT)
	}
	// The child did not grow older meanwhile.
	if s.frost.since != 0 {
		s.passing.since += host.Now() - s.frost.since
		s.frost.since = 0
	}
	s.frost.pids, s.frost.denied = nil, false
	later := s.frost.later
	s.frost.later = nil
	for _, l := range later {
		s.stop(l.signal, l.killAt)
	}
}
