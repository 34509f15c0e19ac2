// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// pipes is a Listener to which a test sends connections.
type pipes chan Conn

func (l pipes) Accept() (Conn, error) {
	c, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l pipes) Close() error { return nil }

// pipe is a connection over which a test sends the messages of a shim.
type pipe struct {
	said    chan []byte
	process Process
	once    sync.Once
	closed  chan struct{}
	// broken is the error with which the connection refuses each order; nil for none.
	broken error
}

func newPipe(t *testing.T, p Process, st Report) *pipe {
	t.Helper()
	b, err := Encode(st)
	require.NoError(t, err)
	c := &pipe{said: make(chan []byte, 1), process: p, closed: make(chan struct{})}
	c.said <- b
	return c
}

func (c *pipe) Send([]byte) error         { return c.broken }
func (c *pipe) Process() (Process, error) { return c.process, nil }

func (c *pipe) Receive() ([]byte, error) {
	select {
	case b := <-c.said:
		return b, nil
	case <-c.closed:
		return nil, io.EOF
	}
}

func (c *pipe) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// mortal is a process that dies when a test closes its channel.
type mortal struct{ dead chan struct{} }

func (m mortal) AwaitDeath(ctx context.Context) error {
	select {
	case <-m.dead:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m mortal) Same(other Process) bool { return other == Process(m) }

func (mortal) Close() error { return nil }

// noNotes stores no note, and reports no error.
type noNotes struct{}

func (noNotes) Read() (map[string][]byte, error) { return nil, nil }
func (noNotes) Write(string, []byte) error       { return nil }
func (noNotes) Remove(string) error              { return nil }

// serving runs a server until the end of the test. The test sends the connections of shims to the
// returned pipes.
func serving(t *testing.T) (*Server, pipes) {
	t.Helper()
	l := make(pipes)
	s, err := NewServer(Config{}, Machine{BootID: "boot", Now: linux.Now, Shims: l, Notes: noNotes{}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		close(l)
		<-done
	})
	return s, l
}

// runningWith returns the state of a shim whose child runs under the hold.
func runningWith(hold string) Report {
	st := waiting("one")
	st.BootID, st.Phase, st.Hold = "boot", Running, hold
	return st
}

// A shim may connect again and die before the server has noticed the end of the first
// connection, or has accepted the second.
func TestDeskReportsTheDeathOfAReconnectedShim(t *testing.T) {
	t.Parallel()
	s, l := serving(t)
	shim, st := mortal{dead: make(chan struct{})}, runningWith("h1")
	l <- newPipe(t, shim, st)
	reported(t, s, func(r Report) bool { return r.Connected })
	close(shim.dead)
	<-time.After(50 * time.Millisecond) // the server has seen the death, and waits for the shim's last messages
	st.Since = 1
	second := newPipe(t, shim, st)
	l <- second
	reported(t, s, func(r Report) bool { return r.Since == 1 })
	second.Close()
	reported(t, s, func(r Report) bool { return r.Dead })
}

// A process that has learned the id of a shim could send the message that the shim's child is dead.
func TestDeskRejectsAProcessThatImpersonatesAShim(t *testing.T) {
	t.Parallel()
	s, l := serving(t)
	shim, st := mortal{dead: make(chan struct{})}, runningWith("h1")
	l <- newPipe(t, shim, st)
	reported(t, s, func(r Report) bool { return r.Connected })
	lie := st
	lie.Phase, lie.Since = Waiting, 1
	other := newPipe(t, mortal{dead: make(chan struct{})}, lie)
	l <- other
	select {
	case <-other.closed:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the server reads what another process says for the shim")
	}
	st.Since = 2
	l <- newPipe(t, shim, st)
	r := reported(t, s, func(r Report) bool { return r.Since != 0 })
	assert.Equal(t, Running, r.Phase)
}

// While the agent's process is suspended, a shim's child may succeed, and the shim may end. When
// the agent goes on, its drain order to that shim fails. The server must still read the shim's
// message about the success from the socket.
func TestDeskReportsChildsSuccessDespiteUndeliverableDrainOrder(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]error{"pipe": syscall.EPIPE, "reset": syscall.ECONNRESET} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, l := serving(t)
			shim, st := mortal{dead: make(chan struct{})}, runningWith("h1")
			c := newPipe(t, shim, st)
			c.broken = broken
			l <- c
			reported(t, s, func(r Report) bool { return r.Connected })
			require.ErrorIs(t, s.Drain("one", "why", time.Second), broken)
			st.Phase, st.Completed = Ended, true
			b, err := Encode(st)
			require.NoError(t, err)
			c.said <- b
			close(shim.dead)
			r := reported(t, s, func(r Report) bool { return r.Dead })
			require.True(t, r.Completed)
		})
	}
}

// A shim that is frozen for long reads nothing, so its socket has no room for a drain order. Once
// the shim runs again, the shim must still get that order.
func TestShimGetsDrainAfterItsSocketWasFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir})
	u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, "agent.sock"), Net: "unixpacket"})
	require.NoError(t, err)
	defer u.Close()
	frozen, err := linux.NewConn(u, MaxMessage)
	require.NoError(t, err)
	st := waiting("one")
	st.BootID, _ = linux.BootID()
	b, err := Encode(st)
	require.NoError(t, err)
	require.NoError(t, frozen.Send(b, pidfdOfSelf(t)))
	reported(t, s, func(r Report) bool { return r.Connected })
	grants, full := 0, error(nil)
	for g := grantOf("h1"); full == nil && grants < 100_000; grants++ {
		g.Deadline++
		full = s.Grant("one", g)
	}
	require.Error(t, full)
	t.Logf("no room after %d grants", grants)
	require.Error(t, s.Drain("one", "why", time.Second))

	// The shim reads again. Either the shim receives the drain order, or the server has hung up.
	// After a hang-up the shim connects again, and receives the drain order then.
	require.NoError(t, frozen.SetReadDeadline(time.Now().Add(2*time.Second)))
	for {
		b, _, err := frozen.Receive()
		if err != nil {
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "neither told nor hung up on")
			break
		}
		o, err := DecodeOrder(b)
		require.NoError(t, err)
		if o.Drain != nil {
			return
		}
	}
	again := joined(t, dir, waiting("one"), pidfdOfSelf(t))
	for o := again.order(); o.Drain == nil; o = again.order() {
		continue
	}
}

// Any program of the pod can connect as a shim, and send any text as the reason of a failure.
func TestDeskIgnoresFailuresWithUnknownReasons(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var lines bytes.Buffer
	s, end := served(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	shim := joined(t, dir, waiting("one"))
	fails := func(serial int, reason string) Trouble {
		shim.Since++
		shim.Trouble = Trouble{Serial: serial, Reason: reason, Message: "the text"}
		require.NoError(t, shim.send(shim.Report))
		return reported(t, s, func(r Report) bool { return r.Since == shim.Since }).Trouble
	}
	for _, reason := range []string{"Acquired", "Released", "Anything", ""} {
		assert.Zero(t, fails(1, reason), reason)
	}
	// These are the reasons of all shims.
	for i, reason := range []string{"FailedPostStartHook", "FailedPreStopHook", "SignalNotPermitted"} {
		told := fails(i+2, reason)
		assert.Equal(t, Trouble{Serial: i + 2, Reason: reason, Message: "the text"}, told)
	}
	known := shim.Trouble
	assert.Equal(t, known, fails(9, "Acquired"), "the report must keep the last known failure")
	end()
	assert.Equal(t, 1, strings.Count(lines.String(), "unknown reason"), "one line for each such shim")
}
