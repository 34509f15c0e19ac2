// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProcessStatParserAcceptsAnyProcessName(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]Process{
		"12 (sh) S 1 12 12 0":          {PID: 12, Parent: 1},
		"13 (a) Z 9 (b) R 12 0":        {PID: 13, Parent: 12},
		"14 () Z 12 0":                 {PID: 14, Parent: 12, Zombie: true},
		"15 (x\n16 (y) S 3) D 13 13 0": {PID: 15, Parent: 13},
	} {
		got, ok := ParseStat([]byte(stat))
		assert.True(t, ok, stat)
		assert.Equal(t, want, got, stat)
	}
	for _, stat := range []string{"", "1", "1 (x", "1 (x)", "1 (x) S", "x (x) S 1 1", "1 (x) S y 1", ") (1"} {
		_, ok := ParseStat([]byte(stat))
		assert.False(t, ok, stat)
	}
}

func TestDescendantsIncludeEveryGeneration(t *testing.T) {
	t.Parallel()
	all := []Process{
		{PID: 1}, {PID: 5, Parent: 4}, {PID: 3, Parent: 1}, {PID: 4, Parent: 3}, {PID: 9, Parent: 0}, {PID: 10, Parent: 9},
		// Process ids were reused during the read, so the parents form a circle.
		{PID: 20, Parent: 21}, {PID: 21, Parent: 20}, {PID: 20, Parent: 1},
	}
	var pids []int
	for _, p := range Descendants(all, 1) {
		pids = append(pids, p.PID)
	}
	assert.ElementsMatch(t, []int{3, 4, 5, 20, 21, 20}, pids)
}

func FuzzParseStatNeverPanics(f *testing.F) {
	f.Add([]byte("15 (x\n16 (y) S 3) D 13 13 0"))
	f.Fuzz(func(_ *testing.T, stat []byte) { ParseStat(stat) })
}

// A debugger may at any time continue a process that it has stopped.
func TestTracedProcessIsNotReportedAsStopped(t *testing.T) {
	for state, stopped := range map[string]bool{"T": true, "t": false, "S": false} {
		p, ok := ParseStat([]byte("7 (x) " + state + " 1 7 7 0 -1 0"))
		require.True(t, ok)
		assert.Equal(t, stopped, p.Stopped, state)
	}
}

func TestDescriptorCheckAcceptsOnlyPidfds(t *testing.T) {
	t.Parallel()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	require.NoError(t, err)
	pidfd, err := unix.PidfdOpen(p.Pid, 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	kill := func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}
	defer kill()
	dup, err := unix.Dup(pidfd)
	require.NoError(t, err)
	f := os.NewFile(uintptr(dup), "pidfd")
	defer f.Close()
	assert.True(t, IsPidfd(f))
	assert.False(t, readable(uintptr(pidfd)))
	kill()
	assert.True(t, readable(uintptr(pidfd)))

	for _, path := range []string{os.DevNull, t.TempDir() + "/pidfd"} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		require.NoError(t, err)
		assert.False(t, IsPidfd(f), path)
		f.Close()
	}
}

func TestPidfdsOfTwoProcessesAreNotTheSame(t *testing.T) {
	t.Parallel()
	open := func(pid int) *os.File {
		fd, err := unix.PidfdOpen(pid, 0)
		require.NoError(t, err)
		f := os.NewFile(uintptr(fd), "pidfd")
		t.Cleanup(func() { f.Close() })
		return f
	}
	self, again, parent := open(os.Getpid()), open(os.Getpid()), open(os.Getppid())
	assert.True(t, SameProcess(self, again))
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	require.NoError(t, err)
	tells := major > 6 || major == 6 && minor >= 9
	assert.Equal(t, !tells, SameProcess(self, parent), "before Linux 6.9 all pidfds have one inode")
}
