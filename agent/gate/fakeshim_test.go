// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// served runs a Server until the test ends, or until the test calls the function "end".
func served(t *testing.T, cfg Config) (s *Server, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Listen(ctx, cfg)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, s.Run(ctx))
	}()
	end = func() {
		cancel()
		<-done
	}
	t.Cleanup(end)
	return s, end
}

// fakeShim sends the messages of a test to the server.
type fakeShim struct {
	t *testing.T
	*linux.Conn
	Report
	orders chan Order
}

func joined(t *testing.T, dir string, st Report, fds ...int) *fakeShim {
	t.Helper()
	f := &fakeShim{t: t, Report: st}
	f.BootID, _ = linux.BootID()
	f.connect(dir, fds...)
	return f
}

func (f *fakeShim) connect(dir string, fds ...int) {
	f.t.Helper()
	u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, "agent.sock"), Net: "unixpacket"})
	require.NoError(f.t, err)
	f.t.Cleanup(func() { u.Close() })
	f.Conn, err = linux.NewConn(u, MaxMessage)
	require.NoError(f.t, err)
	f.orders = make(chan Order, 10)
	c, orders := f.Conn, f.orders
	go func() {
		defer close(orders)
		for {
			b, _, err := c.Receive()
			if err != nil {
				return
			}
			o, err := DecodeOrder(b)
			assert.NoError(f.t, err)
			orders <- o
		}
	}()
	require.NoError(f.t, f.send(f.Report, fds...))
}

func (f *fakeShim) send(message any, fds ...int) error {
	b, err := Encode(message)
	require.NoError(f.t, err)
	return f.Send(b, fds...)
}

func (f *fakeShim) is(p Phase, hold string) {
	f.t.Helper()
	f.Phase, f.Hold = p, hold
	require.NoError(f.t, f.send(f.Report))
}

func (f *fakeShim) order() Order {
	f.t.Helper()
	select {
	case o, ok := <-f.orders:
		require.True(f.t, ok, "hung up")
		return o
	case <-time.After(patience):
		f.t.Fatal("no order")
		return Order{}
	}
}

func (f *fakeShim) hungUp() {
	f.t.Helper()
	select {
	case _, ok := <-f.orders:
		require.False(f.t, ok)
	case <-time.After(patience):
		f.t.Fatal("not hung up")
	}
}

// reported waits for a report for which the function "cond" returns true.
func reported(t *testing.T, s *Server, cond func(Report) bool) Report {
	t.Helper()
	late := time.After(patience)
	var last Report
	for {
		select {
		case last = <-s.Reports():
			if cond(last) {
				return last
			}
		case <-late:
			t.Fatalf("last report: %+v", last)
		}
	}
}

func waiting(id string) Report {
	return Report{Shim: ShimID(id), Container: "app", PID1: true, Phase: Waiting}
}

func grantOf(hold string) Grant {
	return Grant{Hold: hold, Deadline: linux.Now() + time.Hour, Drain: time.Second, Kill: time.Second}
}

// ofSleeper starts a sleeping process, and returns its pidfd. A test passes that pidfd as the pidfd
// of a shim. The function "kill" kills the process.
func ofSleeper(t *testing.T) (pidfd int, kill func()) {
	t.Helper()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	require.NoError(t, err)
	pidfd, err = unix.PidfdOpen(p.Pid, 0)
	require.NoError(t, err)
	kill = func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}
	t.Cleanup(func() {
		kill()
		unix.Close(pidfd)
	})
	return pidfd, kill
}

func (f *fakeShim) hungUpAfter(do func()) {
	f.t.Helper()
	do()
	f.hungUp()
}
