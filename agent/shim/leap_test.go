// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// testLeaps returns the leaps of a fake wall clock; nil for an empty path. Each line of the file at
// that path moves the clock, as a correction after a pause of the machine does.
func testLeaps(path string) *linux.Leaps {
	if path == "" {
		return nil
	}
	var ahead atomic.Int64
	l := linux.LeapsOf(linux.Now, func() time.Duration { return linux.Wall() + time.Duration(ahead.Load()) })
	go func() {
		f, err := os.Open(path)
		if err != nil {
			panic(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			by, err := time.ParseDuration(lines.Text())
			if err != nil {
				panic(err)
			}
			ahead.Add(int64(by))
			l.C <- struct{}{}
		}
	}()
	return l
}

// The method "leapt" moves the shim's wall clock, and waits until the shim reports the leap. The
// results are the number of the leap, and how long the wait took.
func (a *fakeAgent) leapt(by time.Duration) (leap int, took time.Duration) {
	a.t.Helper()
	began := linux.Now()
	_, err := fmt.Fprintln(a.leaps, by)
	require.NoError(a.t, err)
	st := a.next()
	for late := linux.Now() + patience; st.Leap == 0; st = a.next() {
		require.Less(a.t, linux.Now(), late)
	}
	return st.Leap, linux.Now() - began
}

func (a *fakeAgent) confirms(hold string, leap int) {
	a.t.Helper()
	require.NoError(a.t, a.send(gate.Order{Grant: &gate.Grant{
		Hold: hold, BootID: a.boot, Deadline: linux.Now() + time.Hour, Drain: 100 * time.Millisecond, Kill: kill, Leap: leap,
	}}))
}

// family is a child that starts two more processes, and prints the process ids of all three;
// its own id comes first. The last process has stopped itself.
var family = []string{"sh", "-c", `sleep 1000 & a=$!; sh -c 'kill -STOP $$' & echo $$ $a $!; wait`}

func (a *fakeAgent) pids(n int) []int {
	a.t.Helper()
	line, err := bufio.NewReader(a.stdout).ReadString('\n')
	require.NoError(a.t, err)
	var pids []int
	for word := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(word)
		require.NoError(a.t, err)
		pids = append(pids, pid)
	}
	require.Len(a.t, pids, n)
	return pids
}

// The function "stands" reports whether the process is stopped. If the process does not exist,
// the result is false.
func stands(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	p, ok := linux.ParseStat(stat)
	return ok && p.Stopped
}

func stand(t *testing.T, stand bool, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		require.Eventually(t, func() bool { return stands(pid) == stand }, patience, time.Millisecond, "%d", pid)
		require.NoError(t, syscall.Kill(pid, 0), "%d lives", pid)
	}
}

func TestLeapFreezesTheChildUntilTheAgentAnswers(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, family...)
	pids := a.pids(3)
	stand(t, true, pids[2])

	leap, took := a.leapt(time.Minute)
	stand(t, true, pids...)
	t.Logf("the clock was set, and %v later everything was frozen and the agent told", took.Round(10*time.Microsecond))

	a.grants("h1", 2*time.Hour)
	a.confirms("h1", leap+100)
	second, _ := a.leapt(-time.Minute)
	assert.Greater(t, second, leap)
	a.confirms("h1", leap)
	for range 2 { // the next two beats send the state again
		assert.Equal(t, second, a.next().Leap, "no other answer counts")
	}
	stand(t, true, pids...)

	a.confirms("h1", second)
	stand(t, false, pids[:2]...)
	stand(t, true, pids[2])
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

func TestShimKillsFrozenChildOnceSlotIsLost(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, family...)
	pids := a.pids(3)
	a.leapt(time.Minute)
	began := linux.Now()
	require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "Lost"}}))
	a.until(gate.Waiting, "h1")
	t.Logf("told that the slot is lost, and %v later nothing lived", (linux.Now() - began).Round(10*time.Microsecond))
	for _, pid := range pids {
		assert.ErrorIs(t, syscall.Kill(pid, 0), unix.ESRCH)
	}
}

// asked is a child that prints a line when it gets the stop signal, and then ends. The child
// starts no process while it waits. A shell that starts a process by vfork(2) is suspended by the
// kernel until the new process runs. Such a shell would print nothing even if it were not frozen.
var asked = []string{"sh", "-c", `trap 'echo asked; kill $!; stop=1' TERM; sleep 1000 & echo $$; while [ -z "$stop" ]; do wait $!; done; exit 0`}

func TestFrozenChildGetsNoStopSignalAtDeadline(t *testing.T) {
	t.Parallel()
	a := held(t, kill+unstopped, asked...)
	out := bufio.NewReader(a.stdout)
	_, err := out.ReadString('\n')
	require.NoError(t, err)
	a.leapt(time.Minute)
	a.until(gate.Waiting, "h1")
	require.NoError(t, a.cmd.Process.Kill())
	_, err = out.ReadString('\n')
	assert.Error(t, err, "nothing was said, for the application stood still")
}

func TestStopSignalWaitsForTheThaw(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, asked...)
	pid := a.pids(1)[0]
	leap, _ := a.leapt(time.Minute)
	assert.NotEmpty(t, a.runs(time.Second, "true").Error, "nothing is run beside a frozen child")
	// During a deletion, both the kubelet and the agent order the child to stop, but the child
	// gets one signal. If the agent's order comes first, the shim does not wait for the
	// kubelet's signal, because the order also ends the container.
	require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "test", Grace: time.Hour, End: true}}))
	a.until(gate.Draining, "h1")
	require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
	stand(t, true, pid)
	a.confirms("h1", leap)
	line, err := bufio.NewReader(a.stdout).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "asked\n", line)
	rest, _ := io.ReadAll(a.stdout)
	assert.Empty(t, rest)
	a.exits(0)
}

func TestShimIgnoresGrantWithoutNumberOfLatestLeap(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	leap, _ := a.leapt(time.Minute)
	a.grants("h1", time.Hour)
	a.confirms("h2", leap)
	st := a.next()
	for ; st.Phase == gate.Waiting; st = a.next() {
	}
	assert.Equal(t, "h2", st.Hold)
	a.drains("h2")
	a.until(gate.Waiting, "h2")
}

// unstopped is the time from a grant to the kill of a child that a test first suspends or freezes. Even a
// machine that stalls for some seconds starts and suspends the child within this time.
const unstopped = 4 * time.Second

// The test stops the processes of the container by SIGSTOP, but the machine runs on. So the
// wall clock does not leap. When the shim continues, CLOCK_BOOTTIME shows that the deadline has
// passed.
func TestShimResumedAfterItsDeadlineKillsItsChild(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, os.Args[0], "quiet")
	killAt := linux.Now() + unstopped
	a.grants("h1", killAt+kill-linux.Now())
	a.until(gate.Running, "h1")
	pid := a.pids(1)[0]
	require.NoError(t, a.cmd.Process.Signal(unix.SIGSTOP))
	require.NoError(t, syscall.Kill(pid, unix.SIGSTOP))
	<-time.After(killAt - linux.Now())
	assert.NoError(t, syscall.Kill(pid, 0))
	woken := linux.Now()
	require.NoError(t, syscall.Kill(pid, unix.SIGCONT))
	require.NoError(t, a.cmd.Process.Signal(unix.SIGCONT))
	a.until(gate.Waiting, "h1")
	t.Logf("the container ran again, and %v later nothing lived", (linux.Now() - woken).Round(10*time.Microsecond))
	assert.ErrorIs(t, syscall.Kill(pid, 0), unix.ESRCH)
}
