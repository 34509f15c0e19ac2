// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// instant bounds the time that a message takes between two processes of a machine.
const instant = 2 * time.Millisecond

// link is one connection between a shim and an agent process. Messages arrive a little later, in
// the order of their sending. A message is lost if its receiver closes the connection before the
// message arrives.
type link struct {
	agent *AgentProcess
	shim  *ShimProcess
	// hungUp reports that one end has closed the connection. The field "noticed" reports that the
	// shim has learned of the end of the connection.
	hungUp, noticed bool
	// closed reports that the agent's end has closed the connection. The field "ended" reports that
	// all messages of the shim have arrived, and no more will.
	closed, ended bool
	arrived       [][]byte // messages that the agent's end has not read yet
	changed       engine.Signal
	// toAgent and toShim are the instants at which the last message of each direction
	// arrives.
	toAgent, toShim time.Duration
}

// connect makes a connection that the server has yet to accept.
func (s *ShimProcess) connect(a *AgentProcess) {
	s.link = &link{agent: a, shim: s, changed: engine.NewSignal()}
	a.backlog = append(a.backlog, s.link)
	a.connected.Give()
	s.push(shim.Connection{Conn: shimEnd{s.link}})
}

// trip draws the time that the next message takes. The current instant seeds the draw. The
// goroutines of one instant run in any order, so draws from a shared source would differ
// between two replays of a seed.
func (l *link) trip(way string) time.Duration {
	return engine.Between(l.dice(way), 50*time.Microsecond, instant)
}

// dice returns the random source of one direction at one instant.
func (l *link) dice(way string) *rand.Rand {
	return l.shim.w.Source(fmt.Sprint(l.shim.Name, way, l.shim.w.Now()))
}

// later runs f after the delay of a message in the direction "way". All earlier messages in
// that direction arrive before the call of f.
func (l *link) later(way string, last *time.Duration, f func()) {
	w := l.shim.w
	*last = max(*last+1, w.Now()+l.trip(way))
	w.After(*last-w.Now(), f)
}

// hangUp ends the connection. A little later the shim and the agent notice the end, each at a
// separate instant.
func (l *link) hangUp() {
	if l.hungUp {
		return
	}
	l.hungUp = true
	l.later("down", &l.toShim, func() {
		l.noticed = true
		l.shim.push(shim.Connection{})
	})
	l.later("up", &l.toAgent, func() {
		l.ended = true
		l.changed.Give()
	})
}

// shimEnd is the shim's end of a link.
type shimEnd struct{ *link }

// Send implements shim.Conn.
func (l shimEnd) Send(message []byte) error {
	w := l.shim.w
	w.Lock()
	defer w.Unlock()
	if l.hungUp || l.shim.Dead {
		return apiserver.ErrBroken
	}
	if l.shim.Container.pod.Clogged {
		return syscall.EAGAIN
	}
	st, _, err := gate.DecodeMessage(message)
	engine.Must(err)
	l.shim.tells(st)
	l.later("up", &l.toAgent, func() {
		l.arrived = append(l.arrived, message)
		w.Checks.done.arrives(func() bool { return l.agent.Dead }, st.Hold, st.Completed, st.Failed)
		l.changed.Give()
	})
	return nil
}

// agentEnd is the agent's end of a link.
type agentEnd struct{ *link }

// Send implements gate.Conn.
func (l agentEnd) Send(message []byte) error {
	w := l.shim.w
	w.Lock()
	defer w.Unlock()
	switch {
	case l.agent.Process.Dead:
		return engine.ErrDead
	case l.hungUp:
		return apiserver.ErrBroken
	case l.shim.Container.pod.Clogged:
		return syscall.EAGAIN
	}
	message = bytes.Clone(message)
	l.later("down", &l.toShim, func() {
		if l.noticed {
			return
		}
		o, err := gate.DecodeOrder(message)
		engine.Must(err)
		l.shim.push(o)
	})
	return nil
}

// Receive implements gate.Conn. The last messages of a dead shim may still arrive.
func (l agentEnd) Receive() (message []byte, err error) {
	ready := func() bool {
		switch {
		case l.closed:
			err = net.ErrClosed
		case len(l.arrived) > 0:
			message, l.arrived = l.arrived[0], l.arrived[1:]
		case l.ended:
			err = io.EOF
		default:
			return false
		}
		return true
	}
	if !l.agent.Process.Await(&l.changed, ready) {
		return nil, engine.ErrDead
	}
	return message, err
}

// Process implements gate.Conn.
func (l agentEnd) Process() (gate.Process, error) { return pidfd{l.agent, l.shim}, nil }

// Close implements gate.Conn.
func (l agentEnd) Close() error {
	w := l.shim.w
	w.Lock()
	defer w.Unlock()
	l.close()
	return nil
}

// close ends the connection on behalf of the agent.
func (l *link) close() {
	l.hangUp()
	l.closed = true
	l.changed.Give()
}

// pidfd is an agent process's pidfd of a shim's process.
type pidfd struct {
	agent *AgentProcess
	shim  *ShimProcess
}

// AwaitDeath implements gate.Process.
func (p pidfd) AwaitDeath(ctx context.Context) error {
	select {
	case <-p.shim.empty:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !p.agent.Enter() {
		return engine.ErrDead
	}
	p.agent.Leave()
	return nil
}

// Same implements gate.Process.
func (p pidfd) Same(other gate.Process) bool {
	o, ok := other.(pidfd)
	return ok && o.shim == p.shim
}

// Close implements gate.Process.
func (pidfd) Close() error { return nil }
