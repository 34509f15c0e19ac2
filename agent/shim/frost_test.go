// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func init() {
	if len(os.Args) == 2 && os.Args[1] == "headless" {
		runtime.LockOSThread() // the main goroutine stays on the first thread
	}
}

// headless acts as a child whose first thread ends, as by pthread_exit in main. Its other
// threads go on, but /proc shows the process as a zombie.
func headless() {
	go func() {
		for fmt.Println(os.Getpid()); ; {
			runtime.Gosched()
		}
	}()
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
}

// threadsStand reports whether each thread of the process is stopped or has ended.
func threadsStand(t *testing.T, pid string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/" + pid + "/task/*/stat")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		stat, _ := os.ReadFile(file)
		if p, ok := linux.ParseStat(stat); ok && !p.Stopped && !p.Zombie {
			return false
		}
	}
	return true
}

func TestLeapFreezesAProcessWhoseFirstThreadEnded(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, os.Args[0], "headless")
	line, err := bufio.NewReader(a.stdout).ReadString('\n')
	require.NoError(t, err)
	pid := strings.TrimSpace(line)
	assert.False(t, threadsStand(t, pid))
	a.leapt(time.Minute)
	require.Eventually(t, func() bool { return threadsStand(t, pid) }, patience, time.Millisecond)
}

// The method "beats" waits until the shim has sent n beats.
func (a *fakeAgent) beats(n int) {
	a.t.Helper()
	for range n {
		a.next()
	}
}

// A tool that stops and continues a whole container also signals the shim.
func TestShimThatGetsSIGCONTKeepsItsChildFrozen(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, os.Args[0], "quiet")
	pid := a.pids(1)[0]
	a.leapt(time.Minute)
	stand(t, true, pid)
	require.NoError(t, a.cmd.Process.Signal(unix.SIGCONT))
	a.beats(3)
	assert.True(t, stands(pid), "nobody has answered the leap")
}

// A command of kubectl exec, or a process that is not frozen yet, may send SIGCONT to the
// child.
func TestShimRefreezesAChildThatReceivedSIGCONT(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, os.Args[0], "quiet")
	pid := a.pids(1)[0]
	a.leapt(time.Minute)
	stand(t, true, pid)
	require.NoError(t, syscall.Kill(pid, unix.SIGCONT))
	stand(t, true, pid)
}

func TestChildsAgeExcludesItsFrozenTime(t *testing.T) {
	s := newShim(Config{}, Identity{}, newKernel(io.Discard))
	now := linux.Now()
	s.child.pid, s.child.began = os.Getpid(), now-11*time.Second
	s.link.state.Leap, s.frost.since = 1, now-10*time.Second
	s.signals.early = []syscall.Signal{unix.SIGURG}
	s.take(Rang)
	assert.NotEmpty(t, s.signals.early, "a frozen child is asked nothing")
	s.frost.thaw()
	age := linux.Now() - s.child.began
	assert.GreaterOrEqual(t, age, time.Second)
	assert.Less(t, age, youngFor)
}
