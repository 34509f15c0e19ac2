// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package quiet

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

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
		c = Conn(c)
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
			file, err := peer.(conn).Conn.(*net.TCPConn).File()
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
