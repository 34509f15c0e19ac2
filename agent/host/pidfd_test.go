// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

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
