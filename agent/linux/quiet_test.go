// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package linux

import (
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pair returns two ends of a TCP connection over loopback. The second end is the usual one.
func pair(t testing.TB) (quiet, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	usual, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	other, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { usual.Close(); other.Close() })
	return Quiet(usual), other
}

func TestReadReturnsEachByteAndTheEnd(t *testing.T) {
	c, other := pair(t)
	require.IsType(t, quietConn{}, c)
	text := strings.Repeat("abcdefg", 1<<17)
	go func() {
		_, _ = io.Copy(other, strings.NewReader(text))
		other.Close()
	}()
	got, err := io.ReadAll(c)
	assert.NoError(t, err)
	assert.Equal(t, text, string(got))
	n, err := c.Read(make([]byte, 1))
	assert.Zero(t, n)
	assert.Equal(t, io.EOF, err)
}

func TestReadFailsLikeTheUsualRead(t *testing.T) {
	for name, row := range map[string]struct {
		happens func(c, other net.Conn)
		want    error
	}{
		"deadline": {func(c, _ net.Conn) { _ = c.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"closed":   {func(c, _ net.Conn) { c.Close() }, net.ErrClosed},
		"reset": {func(_, other net.Conn) {
			_ = other.(*net.TCPConn).SetLinger(0)
			other.Close()
		}, syscall.ECONNRESET},
	} {
		for moment, before := range map[string]bool{"before the read": true, "during the read": false} {
			t.Run(name+" "+moment, func(t *testing.T) {
				c, other := pair(t)
				failed := make(chan error, 1)
				read := func() {
					_, err := c.Read(make([]byte, 1))
					failed <- err
				}
				if before {
					row.happens(c, other)
					read()
				} else {
					go read()
					<-time.After(10 * time.Millisecond)
					row.happens(c, other)
				}
				assert.ErrorIs(t, <-failed, row.want)
			})
		}
	}
}

func TestConnWithoutDescriptorStaysUnchanged(t *testing.T) {
	c, other := net.Pipe()
	defer other.Close()
	assert.Equal(t, c, Quiet(c))
}

// reader is the environment variable that makes the test's program a reader. Its value is the
// reader's sort.
const reader = "QUIET_READER"

func TestMain(m *testing.M) {
	if sort := os.Getenv(reader); sort != "" {
		readAll(sort == "quiet")
		return
	}
	os.Exit(m.Run())
}

// readAll reads from the connection in descriptor 3 until its end. Like an agent, the process runs Go
// code in one thread.
func readAll(quiet bool) {
	runtime.GOMAXPROCS(1)
	c, err := net.FileConn(os.NewFile(3, "connection"))
	if err != nil {
		panic(err)
	}
	if quiet {
		c = Quiet(c)
	}
	for p := make([]byte, 1500); err == nil; {
		_, err = c.Read(p)
	}
}

// BenchmarkWakeUp shows the processor time of an idle process for one message of 1 kB: by the usual
// Read, and by the quiet Read. Between two messages the process is idle for 20 ms.
func BenchmarkWakeUp(b *testing.B) {
	for _, sort := range []string{"usual", "quiet"} {
		b.Run(sort, func(b *testing.B) {
			peer, mine := pair(b)
			file, err := peer.(quietConn).Conn.(*net.TCPConn).File()
			require.NoError(b, err)
			child := exec.CommandContext(b.Context(), os.Args[0])
			child.Env = append(os.Environ(), reader+"="+sort)
			child.ExtraFiles = []*os.File{file}
			require.NoError(b, child.Start())
			file.Close()
			peer.Close()
			<-time.After(500 * time.Millisecond)
			began := spent(b, child.Process.Pid)
			for range b.N {
				_, err := mine.Write(make([]byte, 1024))
				require.NoError(b, err)
				<-time.After(20 * time.Millisecond)
			}
			b.ReportMetric(float64((spent(b, child.Process.Pid)-began).Microseconds())/float64(b.N), "cpu-µs/op")
			mine.Close()
			require.NoError(b, child.Wait())
		})
	}
}

// spent returns the processor time that all threads of a process have used.
func spent(b *testing.B, pid int) time.Duration {
	b.Helper()
	var t unix.Timespec
	// The kernel makes the id of a process's clock from the process's id (clock_getcpuclockid).
	require.NoError(b, unix.ClockGettime(int32(^pid)<<3|2, &t))
	return time.Duration(t.Nano())
}
