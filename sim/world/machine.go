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

	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/shim"
)

// machine is the modelled kernel of a shim, with the clocks of its node and the processes of its
// container. Only the shim's goroutine calls the methods of machine, and does not hold the mutex.
type machine struct {
	*host.Leaps
	*shimProcess
}

// newMachine makes a machine that detects leaps of the wall clock by the product's own
// rule, host.Leaps. If a time daemon slews CLOCK_BOOTTIME, the wall clock runs at the
// same rate.
func newMachine(s *shimProcess) machine {
	n := s.container.pod.node
	locked := func(read func() time.Duration) func() time.Duration {
		return func() time.Duration {
			s.w.lock()
			defer s.w.unlock()
			return read()
		}
	}
	return machine{host.LeapsOf(locked(n.now), locked(func() time.Duration { return n.now() + n.set })), s}
}

// Now implements shim.Machine.
func (m machine) Now() time.Duration {
	m.w.lock()
	defer m.w.unlock()
	return m.container.pod.node.now()
}

// Next implements shim.Machine. A frozen shim waits in this method, and the goroutine
// of a dead shim ends.
func (m machine) Next(starting bool) shim.Input {
	for {
		m.w.lock()
		if m.dead {
			m.w.unlock()
			runtime.Goexit()
		}
		in, ok := m.take(starting)
		next := m.changed.next()
		m.w.unlock()
		if ok {
			return in
		}
		<-next
	}
}

// take returns the first input that the shim accepts, unless the shim is frozen. A shim that is
// starting a child accepts only the result of the start, ticks and alarms.
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
	m.w.lock()
	defer m.w.unlock()
	s, n := m.shimProcess, m.container.pod.node
	if s.dead || s.alarm != nil && s.rings == at {
		return
	}
	n.cancel(s.alarm)
	s.rings, s.alarm = at, nil
	if at > s.w.now()+farAway {
		return
	}
	s.alarm = n.ring(at+s.late, func() {
		s.alarm = nil
		s.push(shim.Rang)
	})
}

// Say implements shim.Machine.
func (m machine) Say(line string) {
	m.w.lock()
	defer m.w.unlock()
	m.w.note(m.name, "%s", strings.TrimSpace(line))
}

// Start implements shim.Machine. The shims of the world start only children.
func (m machine) Start(c *shim.Command) {
	m.w.lock()
	defer m.w.unlock()
	s := m.shimProcess
	if s.dead {
		return
	}
	born := s.bear(slotsOf(c.Env))
	s.w.after(between(s.rng, 50*time.Microsecond, instant), func() {
		s.push(shim.Start{Command: c, PID: born.main().pid})
	})
}

// Reap implements shim.Machine.
func (m machine) Reap() (pid int, status unix.WaitStatus, none bool) {
	m.w.lock()
	defer m.w.unlock()
	if m.child == nil {
		return 0, 0, true
	}
	for i, p := range m.child.processes {
		if !p.alive {
			m.child.processes = slices.Delete(m.child.processes, i, i+1)
			if len(m.child.processes) == 0 {
				m.child = nil
			}
			return p.pid, p.status, false
		}
	}
	return 0, 0, false
}

// Signal implements shim.Machine.
func (m machine) Signal(pid int, sig syscall.Signal) error {
	m.w.lock()
	defer m.w.unlock()
	p := m.process(pid)
	switch {
	case p == nil || m.dead:
		return unix.ESRCH
	case p.alive:
		m.child.gets(p, sig)
	}
	return nil
}

// Descendants implements shim.Machine.
func (m machine) Descendants() (all []host.Process, err error) {
	m.w.lock()
	defer m.w.unlock()
	if m.child != nil {
		for _, p := range m.child.processes {
			all = append(all, p.seen())
		}
	}
	return all, nil
}

// Find implements shim.Machine.
func (m machine) Find(pid int) (host.Process, bool) {
	m.w.lock()
	defer m.w.unlock()
	if p := m.process(pid); p != nil {
		return p.seen(), true
	}
	return host.Process{}, false
}

func (m machine) process(pid int) *containerProcess {
	if m.child == nil {
		return nil
	}
	for _, p := range m.child.processes {
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
