// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// machine is the modelled kernel of a shim, with the clocks of its node and the processes of its
// container. Only the shim's goroutine calls the methods of machine. This goroutine does not hold
// the mutex of the World, so the methods of shim.Machine lock that mutex.
type machine struct {
	*linux.Leaps
	*ShimProcess
}

// newMachine makes a machine that detects leaps of the wall clock by the product's own
// rule, linux.Leaps. If a time daemon slews CLOCK_BOOTTIME, the wall clock runs at the
// same rate. So a slewed clock is no leap.
func newMachine(s *ShimProcess) machine {
	n := s.Container.pod.Node
	locked := func(read func() time.Duration) func() time.Duration {
		return func() time.Duration {
			s.w.Lock()
			defer s.w.Unlock()
			return read()
		}
	}
	return machine{linux.LeapsOf(locked(n.Now), locked(func() time.Duration { return n.Now() + n.set })), s}
}

// Now implements shim.Machine.
func (m machine) Now() time.Duration {
	m.w.Lock()
	defer m.w.Unlock()
	return m.Container.pod.Node.Now()
}

// Next implements shim.Machine. A frozen shim waits in this method, and the goroutine
// of a dead shim ends.
func (m machine) Next(starting bool) shim.Input {
	for {
		m.w.Lock()
		if m.Dead {
			m.w.Unlock()
			runtime.Goexit()
		}
		in, ok := m.take(starting)
		next := m.changed.Next()
		m.w.Unlock()
		if ok {
			return in
		}
		<-next
	}
}

// take returns the first input that the shim accepts, unless the shim is frozen. While a child is
// starting, the shim accepts only Start, Beat and Rang.
func (m machine) take(starting bool) (shim.Input, bool) {
	i := slices.IndexFunc(m.inputs, func(in shim.Input) bool {
		_, started := in.(shim.Start)
		return !starting || started || in == shim.Beat || in == shim.Rang
	})
	if i < 0 || m.isFrozen() {
		return nil, false
	}
	in := m.inputs[i]
	m.inputs = slices.Delete(m.inputs, i, i+1)
	m.takes(in)
	return in, true
}

// farAway is longer than every story. The shim of a child without a deadline sets an alarm that
// is still further away, and the machine ignores that alarm.
const farAway = 1000 * time.Hour

// Wake implements shim.Machine.
func (m machine) Wake(at time.Duration) {
	m.w.Lock()
	defer m.w.Unlock()
	s, n := m.ShimProcess, m.Container.pod.Node
	if s.Dead || s.alarm != nil && s.rings == at {
		return
	}
	n.Cancel(s.alarm)
	s.rings, s.alarm = at, nil
	if at > s.w.Now()+farAway {
		return
	}
	s.alarm = n.Ring(at+s.late, func() {
		s.alarm = nil
		s.push(shim.Rang)
	})
}

// Say implements shim.Machine.
func (m machine) Say(line string) {
	m.w.Lock()
	defer m.w.Unlock()
	m.w.Note(m.Name, "%s", strings.TrimSpace(line))
}

// longestFork bounds the time until the kernel refuses a fork.
const longestFork = 500 * time.Millisecond

// Start implements shim.Machine. The shims of the world start children, but no asides.
func (m machine) Start(c *shim.Command) {
	m.w.Lock()
	defer m.w.Unlock()
	s := m.ShimProcess
	if s.Dead {
		return
	}
	if s.Container.pod.Unforkable {
		s.w.After(engine.Between(s.rng, 50*time.Microsecond, longestFork), func() {
			s.push(shim.Start{Command: c, Err: unix.EAGAIN})
		})
		return
	}
	born := s.bear(slotsOf(c.Env))
	s.w.After(engine.Between(s.rng, 50*time.Microsecond, instant), func() {
		s.push(shim.Start{Command: c, PID: born.main().pid})
	})
}

// Reap implements shim.Machine.
func (m machine) Reap() (pid int, status unix.WaitStatus, none bool) {
	m.w.Lock()
	defer m.w.Unlock()
	if m.Child == nil {
		return 0, 0, true
	}
	for i, p := range m.Child.processes {
		if !p.alive {
			m.Child.processes = slices.Delete(m.Child.processes, i, i+1)
			if len(m.Child.processes) == 0 {
				m.Child = nil
			}
			return p.pid, p.status, false
		}
	}
	return 0, 0, false
}

// Signal implements shim.Machine.
func (m machine) Signal(pid int, sig syscall.Signal) error {
	m.w.Lock()
	defer m.w.Unlock()
	p := m.process(pid)
	switch {
	case p == nil || m.Dead:
		return unix.ESRCH
	case p.alive:
		m.Child.gets(p, sig)
	}
	return nil
}

// Descendants implements shim.Machine.
func (m machine) Descendants() (all []linux.Process, err error) {
	m.w.Lock()
	defer m.w.Unlock()
	if m.Child != nil {
		for _, p := range m.Child.processes {
			all = append(all, p.seen())
		}
	}
	return all, nil
}

// Find implements shim.Machine.
func (m machine) Find(pid int) (linux.Process, bool) {
	m.w.Lock()
	defer m.w.Unlock()
	if p := m.process(pid); p != nil {
		return p.seen(), true
	}
	return linux.Process{}, false
}

func (m machine) process(pid int) *containerProcess {
	if m.Child == nil {
		return nil
	}
	for _, p := range m.Child.processes {
		if p.pid == pid {
			return p
		}
	}
	return nil
}

// Expects implements shim.Machine. A child of the world handles signals from its
// start.
func (machine) Expects(int, syscall.Signal) bool { return true }

// TakeTerminal implements shim.Machine.
func (machine) TakeTerminal() {}
