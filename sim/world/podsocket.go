// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"io"
	"net"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// waitSocket is the socket on which an agent process listens for "agent wait".
type waitSocket struct {
	process *engine.Process
	pod     *Pod
	queue   []*end
	closed  bool
	wake    chan struct{}
}

func newWaitSocket(p *engine.Process, of *Pod) *waitSocket {
	return &waitSocket{process: p, pod: of, wake: make(chan struct{}, 1)}
}

// Accept implements net.Listener.
func (l *waitSocket) Accept() (net.Conn, error) {
	for {
		if !l.process.Enter() {
			return nil, net.ErrClosed
		}
		var next *end
		if len(l.queue) > 0 {
			next, l.queue = l.queue[0], l.queue[1:]
		}
		closed := l.closed
		l.process.Leave()
		switch {
		case closed:
			return nil, net.ErrClosed
		case next != nil:
			return next, nil
		}
		select {
		case <-l.wake:
		case <-l.process.Ctx.Done():
		}
	}
}

// Close implements net.Listener.
func (l *waitSocket) Close() error {
	l.pod.w.Do(func() {
		l.closed = true
		for _, e := range l.queue {
			e.close()
		}
		wakeUp(l.wake)
	})
	return nil
}

// Addr implements net.Listener.
func (l *waitSocket) Addr() net.Addr { return &net.UnixAddr{Name: "wait.sock", Net: "unix"} }

// sockets has the connections between the processes of a pod.
type sockets struct {
	pod       *Pod
	listening *waitSocket // the socket of the last agent process
	ends      []*end
}

// dial returns a function that connects a process of the pod to the agent's socket.
func (s *sockets) dial(from *engine.Process) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		if !from.Enter() {
			return nil, engine.ErrDead
		}
		defer from.Leave()
		l := s.listening
		if l == nil || l.closed || l.process.Dead {
			return nil, apiserver.ErrUnreachable
		}
		here, there := &end{process: from, pod: s.pod, wake: make(chan struct{}, 1)}, &end{process: l.process, pod: s.pod, wake: make(chan struct{}, 1)}
		here.other, there.other = there, here
		s.ends = append(s.ends, here, there)
		l.queue = append(l.queue, there)
		wakeUp(l.wake)
		return here, nil
	}
}

// hangUp closes the connections of a dead process, as the kernel does.
func (s *sockets) hangUp(dead *engine.Process) {
	for _, e := range slices.Clone(s.ends) {
		if e.process == dead {
			e.close()
		}
	}
}

// end is one end of a connection between two processes of a pod. The written bytes arrive a little
// later, in the order of their writing.
type end struct {
	process *engine.Process
	pod     *Pod
	other   *end
	arrived []byte
	last    time.Duration // the instant at which the last bytes arrive
	over    bool          // this end has learned that the other end is closed
	closed  bool
	wake    chan struct{}
}

// Read implements net.Conn.
func (e *end) Read(into []byte) (int, error) {
	for {
		if !e.process.Enter() {
			return 0, engine.ErrDead
		}
		n := copy(into, e.arrived)
		e.arrived = e.arrived[n:]
		closed, over := e.closed, e.over
		e.process.Leave()
		switch {
		case closed:
			return 0, net.ErrClosed
		case n > 0:
			return n, nil
		case over:
			return 0, io.EOF
		}
		select {
		case <-e.wake:
		case <-e.process.Ctx.Done():
		}
	}
}

// Write implements net.Conn.
func (e *end) Write(text []byte) (int, error) {
	if !e.process.Enter() {
		return 0, engine.ErrDead
	}
	defer e.process.Leave()
	if e.closed || e.other.closed {
		return 0, apiserver.ErrBroken
	}
	sent := slices.Clone(text)
	e.later(func() { e.other.arrived = append(e.other.arrived, sent...) })
	return len(text), nil
}

// Close implements net.Conn.
func (e *end) Close() error {
	e.pod.w.Do(e.close)
	return nil
}

// close closes this end. The other end learns of that a little later.
func (e *end) close() {
	if e.closed {
		return
	}
	e.closed = true
	e.pod.sockets.ends = slices.DeleteFunc(e.pod.sockets.ends, func(other *end) bool { return other == e })
	wakeUp(e.wake)
	e.later(func() { e.other.over = true })
}

// later calls f after the delay of a message on the socket, and wakes the other end. Several
// functions run in the order in which the caller passed them to [end.later].
func (e *end) later(f func()) {
	w := e.pod.w
	e.last = max(e.last+1, w.Now()+engine.Between(e.pod.rng, 50*time.Microsecond, instant))
	w.After(e.last-w.Now(), func() { f(); wakeUp(e.other.wake) })
}

// LocalAddr implements net.Conn.
func (e *end) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (e *end) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// wakeUp signals the channel, unless a signal is pending.
func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
