// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

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
)

// testLeaps are those of a wall clock that each line of the file sets. What a
// machine sees that was paused is just this: its wall clock leaps.
func testLeaps(path string) *Leaps {
	if path == "" {
		return nil
	}
	var ahead atomic.Int64
	l := LeapsOf(func() time.Duration { return wall() + time.Duration(ahead.Load()) })
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

func TestLeapsCountFromTheBoundOn(t *testing.T) {
	for name, c := range map[string]struct {
		steps []time.Duration
		leapt bool
	}{
		"none":                   {nil, false},
		"a time server's step":   {[]time.Duration{128 * time.Millisecond}, false},
		"below the bound":        {[]time.Duration{450 * time.Millisecond}, false},
		"a leap second":          {[]time.Duration{-time.Second}, true},
		"a pause":                {[]time.Duration{time.Minute}, true},
		"back":                   {[]time.Duration{-time.Hour}, true},
		"small ones that add up": {[]time.Duration{200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond}, true},
		"forth and back":         {[]time.Duration{time.Second, -time.Second}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var ahead time.Duration
			l := LeapsOf(func() time.Duration { return wall() + ahead })
			for _, step := range c.steps {
				ahead += step
			}
			assert.Equal(t, c.leapt, l.Leapt())
			l.Settle()
			assert.False(t, l.Leapt())
		})
	}
}

// The kernel itself tells with which flags a timer was set: it is absolute (1),
// and cancelled when the clock is set (2).
func TestKernelIsAskedToTellOfASetClock(t *testing.T) {
	l := NewLeaps()
	defer l.Close()
	require.NotNil(t, l.file)
	raw, err := l.file.SyscallConn()
	require.NoError(t, err)
	var info []byte
	require.NoError(t, raw.Control(func(fd uintptr) { info, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd)) }))
	require.NoError(t, err)
	assert.Contains(t, string(info), "clockid: 0\n", "CLOCK_REALTIME")
	assert.Contains(t, string(info), "settime flags: 03\n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run()
	}()
	require.NoError(t, l.Close())
	<-ended
	assert.Empty(t, l.C, "nobody has set the clock")
}

func TestCancelledTimerIsPassedOn(t *testing.T) {
	l := LeapsOf(wall)
	errs := []error{unix.ECANCELED, unix.ECANCELED, os.ErrClosed}
	l.pass(func([]byte) (n int, err error) {
		err, errs = errs[0], errs[1:]
		return 0, &os.PathError{Op: "read", Path: "wall clock", Err: err}
	})
	assert.Len(t, l.C, 1)
	assert.Empty(t, errs)
}

func TestWatchTellsOfLeapsAlone(t *testing.T) {
	var ahead atomic.Int64
	l := LeapsOf(func() time.Duration { return wall() + time.Duration(ahead.Load()) })
	leapt := l.Watch(t.Context())
	l.C <- struct{}{} // set by nothing
	ahead.Store(int64(time.Minute))
	l.C <- struct{}{}
	<-leapt
	assert.Empty(t, leapt)
}

// leapt sets the shim's wall clock and waits until the shim says so.
func (a *fakeAgent) leapt(by time.Duration) (leap int, took time.Duration) {
	a.t.Helper()
	began := Now()
	_, err := fmt.Fprintln(a.leaps, by)
	require.NoError(a.t, err)
	st := a.next()
	for late := Now() + patience; st.Leap == 0; st = a.next() {
		require.Less(a.t, Now(), late)
	}
	return st.Leap, Now() - began
}

func (a *fakeAgent) confirms(hold string, leap int) {
	a.t.Helper()
	require.NoError(a.t, a.send(order{Grant: &Grant{
		Hold: hold, BootID: a.boot, Deadline: Now() + time.Hour, Drain: 100 * time.Millisecond, Kill: kill, Leap: leap,
	}}))
}

// family is a child that starts two more and says who all are: the first of them is
// the child itself, the last has stopped itself.
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

// stands reports whether the process is stopped; false if there is none.
func stands(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	p, ok := parseStat(stat)
	return ok && p.stopped
}

func stand(t *testing.T, stand bool, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		require.Eventually(t, func() bool { return stands(pid) == stand }, patience, time.Millisecond, "%d", pid)
		require.NoError(t, syscall.Kill(pid, 0), "%d lives", pid)
	}
}

func TestLeapFreezesTheChildUntilItIsAnswered(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, family...)
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
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
	for range 2 { // beats
		assert.Equal(t, second, a.next().Leap, "no other answer counts")
	}
	stand(t, true, pids...)

	a.confirms("h1", second)
	stand(t, false, pids[:2]...)
	stand(t, true, pids[2])
	a.drains("h1")
	a.until(Waiting, "h1")
}

func TestFrozenChildIsKilledWhereTheSlotIsLost(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, family...)
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	pids := a.pids(3)
	a.leapt(time.Minute)
	began := Now()
	require.NoError(t, a.send(order{Drain: &drain{Hold: "h1", Reason: "Lost"}}))
	a.until(Waiting, "h1")
	t.Logf("told that the slot is lost, and %v later nothing lived", (Now() - began).Round(10*time.Microsecond))
	for _, pid := range pids {
		assert.ErrorIs(t, syscall.Kill(pid, 0), unix.ESRCH)
	}
}

// asked is a child that says when it is asked to stop, and stops. It starts nothing
// meanwhile: who has called vfork(2) stands still for another reason.
var asked = []string{"sh", "-c", `trap 'echo asked; kill $!; stop=1' TERM; sleep 1000 & echo $$; while [ -z "$stop" ]; do wait $!; done; exit 0`}

func TestFrozenChildIsKilledAtTheDeadlineUnasked(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, asked...)
	a.grants("h1", kill+time.Second)
	a.until(Running, "h1")
	out := bufio.NewReader(a.stdout)
	_, err := out.ReadString('\n')
	require.NoError(t, err)
	a.leapt(time.Minute)
	a.until(Waiting, "h1")
	require.NoError(t, a.cmd.Process.Kill())
	_, err = out.ReadString('\n')
	assert.Error(t, err, "nothing was said, for the application stood still")
}

func TestStopSignalWaitsForTheThaw(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, asked...)
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	pid := a.pids(1)[0]
	leap, _ := a.leapt(time.Minute)
	assert.NotEmpty(t, a.runs(time.Second, "true").Error, "nothing is run beside a frozen child")
	// In a deletion the kubelet and the agent both ask: the child hears one signal. The
	// order ends the container, for the kubelet's signal may reach the shim last.
	require.NoError(t, a.send(order{Drain: &drain{Hold: "h1", Reason: "test", Grace: time.Hour, End: true}}))
	a.until(Draining, "h1")
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

func TestGrantFromBeforeALeapStartsNothing(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	leap, _ := a.leapt(time.Minute)
	a.grants("h1", time.Hour)
	a.confirms("h2", leap)
	st := a.next()
	for ; st.Phase == Waiting; st = a.next() {
	}
	assert.Equal(t, "h2", st.Hold)
	a.drains("h2")
	a.until(Waiting, "h2")
}

// A container that is frozen alone needs no wall clock: CLOCK_BOOTTIME goes on.
func TestContainerFrozenPastItsDeadlineKillsWhenItWakes(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, os.Args[0], "quiet")
	killAt := Now() + 500*time.Millisecond
	a.grants("h1", killAt+kill-Now())
	a.until(Running, "h1")
	pid := a.pids(1)[0]
	require.NoError(t, a.cmd.Process.Signal(unix.SIGSTOP))
	require.NoError(t, syscall.Kill(pid, unix.SIGSTOP))
	<-time.After(killAt - Now())
	assert.NoError(t, syscall.Kill(pid, 0))
	woken := Now()
	require.NoError(t, syscall.Kill(pid, unix.SIGCONT))
	require.NoError(t, a.cmd.Process.Signal(unix.SIGCONT))
	a.until(Waiting, "h1")
	t.Logf("the container ran again, and %v later nothing lived", (Now() - woken).Round(10*time.Microsecond))
	assert.ErrorIs(t, syscall.Kill(pid, 0), unix.ESRCH)
}
