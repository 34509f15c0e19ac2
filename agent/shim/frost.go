// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// frost has the processes that the shim froze after a leap of the wall clock. The machine may
// have been paused, and another pod may hold the slot by now. Only a grant that answers the
// leap lets the child continue.
type frost struct {
	machine Machine
	link    *link
	child   *child
	// If the field "never" is true, the child holds no slot that another pod could have taken. The
	// shim does not freeze such a child.
	never bool
	leaps int   // the number of leaps so far
	pids  []int // the ids of the frozen processes, parents first
	// since is the instant of the freeze; zero while no process is frozen.
	since time.Duration
	// The field "denied" reports that the shim has logged that the kernel does not let the shim
	// freeze a process.
	denied bool
	// The field "later" has the stop signals that wait for the thaw.
	later []stopLater
}

// stopLater is a stop signal that waits for the thaw. If the child does not stop after the signal,
// the shim kills the child at the instant killAt.
type stopLater struct {
	signal syscall.Signal
	killAt time.Duration
}

// reset forgets the frozen processes of a child that is dead.
func (f *frost) reset() { f.pids, f.later, f.denied, f.since = nil, nil, false, 0 }

// The method "on" reports whether the child must be frozen, because no grant has answered the
// last leap of the wall clock yet.
func (f *frost) on() bool {
	return !f.never && f.link.state.Leap != 0 && f.child.pid != 0 && !f.child.killing
}

// keep keeps a stop signal until the thaw. If the same signal already waits, keep drops the
// second one.
func (f *frost) keep(sig syscall.Signal, killAt time.Duration) {
	if !slices.ContainsFunc(f.later, func(l stopLater) bool { return l.signal == sig }) {
		f.later = append(f.later, stopLater{sig, killAt})
	}
}

// mindLeaps freezes the child if the wall clock has leapt. The shim calls mindLeaps after each
// wait for an input, before the shim handles that input.
func (f *frost) mindLeaps() {
	if f.machine.Leapt() {
		f.machine.Rebase()
		f.leaps++
		f.link.state.Leap = f.leaps
		f.freeze()
		f.link.tell()
		return
	}
	f.freeze() // a process may have started since the last call of freeze
}

// freezeRounds bounds how often the shim lists and stops its descendants in one freeze. While
// the shim stops some processes, others may fork. A stopped process does not fork, so two rounds
// are usually enough. If processes fork faster than the shim stops them, the shim stops the rest
// at the next beat.
const freezeRounds = 10

// freeze stops every descendant of the shim, if the child must be frozen. The list pids does not
// contain a process that was stopped before the freeze, so the thaw does not continue that
// process.
func (f *frost) freeze() {
	if !f.on() {
		return
	}
	if len(f.pids) == 0 {
		f.since = f.machine.Now()
		// The child's own process comes first, because the shim finds it without a list of all
		// processes.
		if p, ok := f.machine.Find(f.child.pid); ok {
			_, _ = f.freezeAll([]linux.Process{p})
		}
		f.link.say("the clock was set: the application stands still until the slot is known to be its own")
	}
	for range freezeRounds {
		if fresh, err := f.freezeDescendants(); err != nil && !f.denied {
			f.link.say("the application cannot be frozen here: %v", err)
			f.denied = true
		} else if fresh == 0 {
			return
		}
	}
}

// freezeDescendants stops each running descendant once, and returns how many of them were not
// frozen before. An error means that the shim cannot stop, or cannot list, its descendants.
func (f *frost) freezeDescendants() (fresh int, denied error) {
	processes, err := f.machine.Descendants()
	if err != nil {
		return 0, err
	}
	return f.freezeAll(processes)
}

func (f *frost) freezeAll(processes []linux.Process) (fresh int, denied error) {
	for _, p := range processes {
		// A process whose first thread has ended never counts as Stopped, so such a process gets
		// SIGSTOP in each round. A process that another process has continued gets SIGSTOP again.
		if p.Stopped {
			continue
		}
		switch err := f.machine.Signal(p.PID, unix.SIGSTOP); {
		case err == nil:
			if !slices.Contains(f.pids, p.PID) {
				f.pids = append(f.pids, p.PID)
				fresh++
			}
		case !errors.Is(err, unix.ESRCH) && !p.Zombie:
			denied = fmt.Errorf("freeze process %d: %w", p.PID, err)
		}
	}
	return fresh, denied
}

// thaw lets the frozen processes continue. Each process continues before its parent, so that no
// parent sees a stopped child. The result has the stop signals that waited for the thaw.
func (f *frost) thaw() (later []stopLater) {
	for _, pid := range slices.Backward(f.pids) {
		_ = f.machine.Signal(pid, unix.SIGCONT)
	}
	// A frozen child sets no signal handlers. So the time in which the child was frozen does
	// not count toward youngFor.
	if f.since != 0 {
		f.child.began += f.machine.Now() - f.since
	}
	later = f.later
	f.reset()
	return later
}
