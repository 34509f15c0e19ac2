// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// childEnv names the environment variable that selects the role of a process of the test
// binary. Each process has only one role. So the kernel's figures of a process count the
// memory and the bytes of that role alone.
const childEnv = "FORWARD_CHILD"

func TestMain(m *testing.M) {
	switch role, port, _ := strings.Cut(os.Getenv(childEnv), " "); role {
	case "forward":
		runForwarder(port)
	case "echo":
		runHolder()
	default:
		os.Exit(m.Run())
	}
}

// runForwarder forwards a port as an agent does, until the standard input ends.
func runForwarder(port string) {
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(1)
	number, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	f := closed(Config{Ports: []int{number}, Datagrams: []int{number}, MaxOpen: 20_000, MaxFlows: 20_000})
	if err := f.Open(); err != nil {
		panic(err)
	}
	f.SetTarget(holder)
	fmt.Println(port)
	_, _ = io.Copy(io.Discard, os.Stdin)
	f.Close()
}

// runHolder runs the holder's application until the standard input ends.
func runHolder() {
	listener, err := listen(holder + ":0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go copyThrough(conn, conn) // plain io.Copy would keep a pipe for each connection
		}
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is a process that runs the test binary in one role.
type process struct {
	*exec.Cmd
	tb   testing.TB
	port int
}

// startProcess starts a process, which prints its port.
func startProcess(tb testing.TB, role string) *process {
	tb.Helper()
	p := &process{exec.CommandContext(tb.Context(), os.Args[0]), tb, 0}
	p.Env = append(os.Environ(), childEnv+"="+role)
	p.Stderr = os.Stderr
	in, err := p.StdinPipe()
	require.NoError(tb, err)
	out, err := p.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, p.Start())
	tb.Cleanup(func() { in.Close(); _ = p.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(tb, err)
	p.port, err = strconv.Atoi(strings.TrimSpace(line))
	require.NoError(tb, err)
	return p
}

// startForwarder starts a process that forwards a port of 127.0.0.1 to the same port of the
// holder.
func startForwarder(tb testing.TB, port int) *process {
	tb.Helper()
	return startProcess(tb, "forward "+strconv.Itoa(port))
}

// figure returns the number that follows the name in a file of the process's directory in /proc.
func (p *process) figure(file, name string) int64 {
	p.tb.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Process.Pid), file))
	require.NoError(p.tb, err)
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); key == name {
			n, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			require.NoError(p.tb, err)
			return n
		}
	}
	require.FailNow(p.tb, "no figure "+name)
	return 0
}

// resident returns the resident memory of the process in bytes.
func (p *process) resident() int64 { return 1024 * p.figure("status", "VmRSS") }

// descriptors returns the number of the process's open descriptors.
func (p *process) descriptors() int {
	all, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.Process.Pid), "fd"))
	require.NoError(p.tb, err)
	return len(all)
}

// openIdle opens the given number of connections through the forwarder. Each of them has carried
// one byte.
func (p *process) openIdle(count int) {
	p.tb.Helper()
	for range count {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(p.port))
		require.NoError(p.tb, err)
		p.tb.Cleanup(func() { conn.Close() })
		require.NoError(p.tb, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = conn.Write([]byte("x"))
		require.NoError(p.tb, err)
		_, err = io.ReadFull(conn, make([]byte, 1))
		require.NoError(p.tb, err)
	}
}

// The kernel counts each byte that a process reads or writes, but not the bytes that the process
// moves by splice. The figures of the test's own process show that the kernel also counts the
// bytes of sockets.
func TestForwardedDataBypassTheAgentProcess(t *testing.T) {
	const size = 64 << 20
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		defer conn.Close()
		_ = copyThrough(conn, conn)
	})
	p := startForwarder(t, port)
	self := &process{Cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}, tb: t}
	before, ownBefore := p.figure("io", "rchar")+p.figure("io", "wchar"), self.figure("io", "rchar")
	conn := connect(t, port)
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	var sending sync.WaitGroup
	sending.Go(func() {
		_, err := io.CopyN(struct{ io.Writer }{conn}, zeros{}, size)
		assert.NoError(t, err)
		assert.NoError(t, conn.CloseWrite())
	})
	n, err := io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn})
	require.NoError(t, err)
	sending.Wait()
	assert.EqualValues(t, size, n)
	assert.Less(t, p.figure("io", "rchar")+p.figure("io", "wchar")-before, int64(1<<20))
	assert.Greater(t, self.figure("io", "rchar")-ownBefore, int64(size), "otherwise the figure means nothing")
}

type zeros struct{}

func (zeros) Read(to []byte) (int, error) { return len(to), nil }

func TestIdleForwardedConnectionTakesLittleMemory(t *testing.T) {
	const count = 500
	port := app(t, holder+":0", echo)
	p := startForwarder(t, port)
	p.openIdle(100) // with 100 connections the process grows to its usual size
	memory, descriptors := p.resident(), p.descriptors()
	p.openIdle(count)
	assert.LessOrEqual(t, p.descriptors()-descriptors, 2*count+2*maxIdlePipes, "two sockets each, and no pipes")
	if !raceDetector() { // with the race detector a process takes several times as much memory
		assert.Less(t, (p.resident()-memory)/count, int64(12<<10))
	}
}

// raceDetector reports whether the test binary contains the race detector.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// BenchmarkMemoryOfAForwardedConnection prints the memory of one connection in the agent's process. The
// benchmark opens 10,000 connections, or as many as the limit of descriptors allows.
func BenchmarkMemoryOfAForwardedConnection(b *testing.B) {
	var limit syscall.Rlimit
	require.NoError(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	count := int64(min(10_000, limit.Max/2-100))
	p := startForwarder(b, startProcess(b, "echo").port)
	memory, descriptors := p.resident(), p.descriptors()
	p.openIdle(int(count))
	for b.Loop() {
		runtime.Gosched()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(count), "conns")
	b.ReportMetric(float64(p.resident()-memory)/float64(count), "B/conn")
	b.ReportMetric(float64(p.resident())/(1<<20), "MiB")
	b.ReportMetric(float64(p.descriptors()-descriptors)/float64(count), "fds/conn")
}

// Each client of the benchmark sends one datagram, to which no application answers.
func BenchmarkMemoryOfAFlow(b *testing.B) {
	const count = 5000
	p := startForwarder(b, startProcess(b, "echo").port)
	memory, descriptors := p.resident(), p.descriptors()
	for i := range count {
		client := dialPackets(b, "127.0.0.1", p.port)
		_, err := client.Write([]byte("x"))
		require.NoError(b, err)
		for i%64 == 63 && p.descriptors() <= descriptors+i { // so that no datagram is dropped
			runtime.Gosched()
		}
	}
	for b.Loop() {
		runtime.Gosched()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(p.resident()-memory)/count, "B/flow")
	b.ReportMetric(float64(p.descriptors()), "fds")
}
