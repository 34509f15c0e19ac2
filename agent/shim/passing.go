// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"cmp"
	"errors"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

const notPermitted = "the application did not get a signal: it runs as another user, " +
	"and its container may not signal other users' processes; add the capability KILL"

// A child counts as young until the time youngFor after its start. A young child may not
// have set its signal handlers yet. So the shim holds back each signal that would end the child
// for lack of a handler. A Python program that first loads large libraries set its handler
// after 1.3 s, on a machine with ten busy processes for each processor. The constant is about
// four times as long. Without a shim, the child is PID 1, and the kernel drops such a signal.
// The child then runs until its grace is over. So no child runs longer behind a shim than
// without one.
const youngFor = 5 * time.Second

// The kernel notifies only a tracer when a child sets a signal handler, and a tracer would
// change the child. So while the shim holds a signal back, the shim checks again and again whether
// the child has a handler. The time between two checks grows from lookFirst to lookMost. A small
// program sets its handlers within lookFirst. The time lookMost is a fiftieth of youngFor.
const (
	lookFirst = 5 * time.Millisecond
	lookMost  = 100 * time.Millisecond
)

// passing passes signals on to one child.
type passing struct {
	machine    Machine
	link       *link
	child      *child
	stopSignal syscall.Signal // the container's stop signal
	// early has the signals that the shim holds back, in the order in which the child gets them. The
	// shim checks these signals at the instant lookAt. The field "pause" is the time from the last
	// check until that instant.
	early  []syscall.Signal
	lookAt time.Duration
	pause  time.Duration
	// The field "denied" reports that people have already been told of a signal that the kernel
	// refused to send.
	denied bool
}

// reset forgets the signals of a child that is dead.
func (p *passing) reset() { p.early, p.denied = nil, false }

// give sends the child a signal, once the child is ready for that signal.
func (p *passing) give(sig syscall.Signal) {
	switch {
	case p.child.pid == 0 || slices.Contains(p.early, sig):
	case len(p.early) > 0:
		p.hold(sig)
		p.release()
	case p.tooEarly(sig):
		p.hold(sig)
		p.pause = lookFirst
		p.lookAt = p.machine.Now() + p.pause
	default:
		p.send(sig)
	}
}

// hold adds a signal to the signals that the shim holds back. A stop signal stays behind all other
// signals, because its handler often ends the child. The Go runtime receives signals in several
// threads. So of two signals sent within a millisecond, the shim may get the stop signal first.
func (p *passing) hold(sig syscall.Signal) {
	at := len(p.early)
	if !p.stops(sig) {
		if first := slices.IndexFunc(p.early, p.stops); first >= 0 {
			at = first
		}
	}
	p.early = slices.Insert(p.early, at, sig)
}

// The method "stops" reports whether the signal is a stop signal: that of the container, or SIGTERM.
func (p *passing) stops(sig syscall.Signal) bool { return sig == unix.SIGTERM || sig == p.stopSignal }

// giveEarly sends the child those held-back signals for which it has become ready. Before the
// instant lookAt, giveEarly does nothing.
func (p *passing) giveEarly() {
	if len(p.early) == 0 || p.machine.Now() < p.lookAt {
		return
	}
	p.release()
	p.pause = min(2*p.pause, lookMost)
	p.lookAt = p.machine.Now() + p.pause
}

// release sends the child those signals for which it has become ready, in their order. The child
// may set several handlers between two checks, so release checks the last signal first. In the
// other order, release could hold back an earlier signal, but send a later SIGTERM, which ends the
// child.
func (p *passing) release() {
	var held, ready []syscall.Signal
	for _, sig := range slices.Backward(p.early) {
		if p.tooEarly(sig) {
			held = append(held, sig)
		} else {
			ready = append(ready, sig)
		}
	}
	slices.Reverse(held)
	p.early = held
	for _, sig := range slices.Backward(ready) {
		p.send(sig)
	}
}

// due returns the instant of the next check of the signals held back, or the given instant if
// that is earlier.
func (p *passing) due(at time.Duration) time.Duration {
	if len(p.early) > 0 {
		return min(at, p.lookAt)
	}
	return at
}

// harmless are the signals that end no process by default.
var harmless = []syscall.Signal{unix.SIGCONT, unix.SIGWINCH, unix.SIGCHLD, unix.SIGURG}

// tooEarly reports whether the signal would end the child only because the child is young. A
// child that blocks the signal counts as ready, because the child may be about to take the signal
// by sigwait(3).
func (p *passing) tooEarly(sig syscall.Signal) bool {
	if slices.Contains(harmless, sig) || p.child.pid == 0 || p.machine.Now() >= p.child.began+youngFor {
		return false
	}
	return !p.machine.Expects(p.child.pid, sig)
}

// send sends the child a signal. If the kernel refuses, send reports the first such refusal to
// people.
func (p *passing) send(sig syscall.Signal) {
	if p.child.pid == 0 {
		return
	}
	err := p.machine.Signal(p.child.pid, sig)
	if errors.Is(err, unix.EPERM) && !p.denied {
		p.denied = true
		p.link.say("%s: %s: %v", cmp.Or(unix.SignalName(sig), sig.String()), notPermitted, err)
		p.link.trouble(gate.ReasonNotPermitted, notPermitted)
	}
}
