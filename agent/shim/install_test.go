// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestInstalledBinaryIsWholeAndExecutableByAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	to, run := filepath.Join(dir, "bin", "agent"), filepath.Join(dir, "run")
	for range 2 {
		require.NoError(t, OpenDirs(run, filepath.Join(run, "granted")))
		require.NoError(t, Install("/proc/self/exe", to))
	}
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	copied, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.Len(t, copied, len(self))
	for path, want := range map[string]os.FileMode{to: 0o555, run: 0o777, run + "/granted": 0o777} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode().Perm(), path)
	}
	left, err := os.ReadDir(filepath.Dir(to))
	require.NoError(t, err)
	assert.Len(t, left, 1)
}

func TestInstallRewritesOnlyADifferentProgram(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "bin", "agent")
	require.NoError(t, Install("/proc/self/exe", to))
	first, err := os.Stat(to)
	require.NoError(t, err)
	require.NoError(t, Install("/proc/self/exe", to))
	again, err := os.Stat(to)
	require.NoError(t, err)
	assert.True(t, os.SameFile(first, again))

	whole, err := os.ReadFile(to)
	require.NoError(t, err)
	changed := bytes.Clone(whole)
	changed[len(changed)/2]++
	for _, other := range [][]byte{nil, whole[:len(whole)-1], append(bytes.Clone(whole), 0), changed} {
		require.NoError(t, os.Remove(to))
		require.NoError(t, os.WriteFile(to, other, 0o555))
		require.NoError(t, Install("/proc/self/exe", to))
		now, err := os.ReadFile(to)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(whole, now))
	}
}

func TestOnlyBinaryRemainsAfterConcurrentAndKilledInstalls(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "bin", "agent")
	require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(t, os.WriteFile(to+".new", []byte("half"), 0o700))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { assert.NoError(t, Install("/proc/self/exe", to)) })
	}
	all.Wait()
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	copied, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(self, copied))
	left, err := os.ReadDir(filepath.Dir(to))
	require.NoError(t, err)
	assert.Len(t, left, 1)
}

// A program of a gated container has a read-only mount of the shared volume. A read-only open is
// enough for each kind of flock.
func TestFlockInSharedVolumeNeverBlocksInstall(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "shim"), filepath.Join(t.TempDir(), "bin", "agent")
	for _, program := range []string{"old", "old", "new"} {
		require.NoError(t, os.WriteFile(from, []byte(program), 0o755)) //nolint:gosec // a program
		ended := make(chan error, 1)
		go func() { ended <- Install(from, to) }()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			require.Fail(t, "the install waits for the flock of a gated program")
		}
		for _, path := range []string{filepath.Dir(filepath.Dir(to)), filepath.Dir(to), to} {
			file, err := os.Open(path)
			require.NoError(t, err)
			t.Cleanup(func() { _ = file.Close() })
			require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_SH))
		}
	}
	installed, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.Equal(t, "new", string(installed))
}

func TestConcurrentInstallsOfOneProgramExcludeEachOther(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "shim")
	require.NoError(t, os.WriteFile(from, []byte("program"), 0o755)) //nolint:gosec // a program
	require.NoError(t, alone(from, func() error {
		other, err := os.Open(from)
		require.NoError(t, err)
		defer other.Close()
		assert.Equal(t, unix.EWOULDBLOCK, unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		return nil
	}))
}

func TestInstallKeepsTheSetgidBitOfAVolume(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	require.NoError(t, os.Mkdir(dir, 0o750))
	require.NoError(t, os.Chmod(dir, os.ModeSetgid|0o750)) // as the kubelet does for an fsGroup
	require.NoError(t, openDir(dir))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|os.ModeSetgid|0o777, info.Mode())
}

func TestInstallErrorExplainsFullOrReadOnlyVolume(t *testing.T) {
	t.Parallel()
	for cause, want := range map[unix.Errno]error{
		unix.ENOSPC: errFull, unix.EDQUOT: errFull, unix.EROFS: errReadOnly,
	} {
		err := explain(fmt.Errorf("install program: %w", &os.PathError{Op: "write", Path: "x", Err: cause}))
		assert.ErrorIs(t, err, want)
		assert.ErrorIs(t, err, cause)
	}
	assert.NoError(t, explain(nil))
	assert.Equal(t, os.ErrPermission, explain(os.ErrPermission))
}
