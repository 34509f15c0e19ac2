// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The versions that this package names are those that are built.
func TestProgramsHaveTheVersionsThatAreNamed(t *testing.T) {
	c, err := Open(t.TempDir())
	require.NoError(t, err)
	for _, p := range programs() {
		key, err := p.key(filepath.Join(c.sources, p.name))
		require.NoError(t, err, p.name)
		assert.Contains(t, key, p.version, p.name)
	}
}

func TestKeyChangesWithWhatIsBuilt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	write("go.mod", "module x\n\nrequire (\n\texample.com/m v1.2.3\n)\n")
	write("main.go", "package main")
	p := program{name: "x", module: "example.com/m", version: "v1.2.3"}
	first, err := p.key(dir)
	require.NoError(t, err)
	assert.Regexp(t, `^x-v1\.2\.3-[0-9a-f]{12}$`, first)

	again, err := p.key(dir)
	require.NoError(t, err)
	assert.Equal(t, first, again)

	flagged := p
	flagged.flags = []string{"-tags=y"}
	changed, err := flagged.key(dir)
	require.NoError(t, err)
	assert.NotEqual(t, first, changed)

	write("main.go", "package main // changed")
	changed, err = p.key(dir)
	require.NoError(t, err)
	assert.NotEqual(t, first, changed)

	p.version = "v1.2.4"
	_, err = p.key(dir)
	assert.ErrorContains(t, err, "requires example.com/m v1.2.3, but this is for v1.2.4")
}

func TestProgressLine(t *testing.T) {
	p := &progress{title: "building x", what: "packages compiled", done: 7}
	assert.Equal(t, "building x: 7 packages compiled, 65 s", p.line(65*time.Second))
	p.total = 9
	assert.Equal(t, "building x: 7 of 9 packages compiled, 65 s", p.line(65*time.Second))
	p.done = 9
	assert.Equal(t, "building x: 9 of 9 packages compiled, linking, 65 s", p.line(65*time.Second))
}

func TestLockIsOneAtATime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), file, func() { t.Error("nobody else has it") })
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = lock(ctx, file, cancel)
	require.ErrorIs(t, err, context.Canceled, "told to wait, and gave up")

	waiting := make(chan struct{})
	taken := make(chan error)
	go func() {
		unlock, err := lock(t.Context(), file, func() { close(waiting) })
		if err == nil {
			unlock()
		}
		taken <- err
	}()
	<-waiting
	unlock()
	assert.NoError(t, <-taken)
}

func TestPollNamesWhatDidNotCome(t *testing.T) {
	calls := 0
	require.NoError(t, poll(t.Context(), time.Minute, "it", func() error {
		calls++
		if calls < 3 {
			return os.ErrNotExist
		}
		return nil
	}))
	err := poll(t.Context(), time.Millisecond, "the kettle", func() error { return os.ErrNotExist })
	assert.EqualError(t, err, "wait for the kettle: file does not exist")
}

func TestCgroupHierarchies(t *testing.T) {
	hybrid := `tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
`
	groups, err := hostCgroups(hybrid)
	require.NoError(t, err)
	assert.False(t, groups.unified)
	assert.Equal(t, []string{"/sys/fs/cgroup/cpu/lab/n1", "/sys/fs/cgroup/freezer/lab/n1"}, groups.dirs("lab/n1"))
	assert.Contains(t, groups.all, "/sys/fs/cgroup/unified")
	file, write, read := groups.freezeFile("lab/n1", true)
	assert.Equal(t, []string{"/sys/fs/cgroup/freezer/lab/n1/freezer.state", "FROZEN", "FROZEN"}, []string{file, write, read})

	groups, err = hostCgroups("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
	require.NoError(t, err)
	assert.True(t, groups.unified)
	file, write, read = groups.freezeFile("lab/n1", false)
	assert.Equal(t, []string{"/sys/fs/cgroup/lab/n1/cgroup.freeze", "0", "frozen 0"}, []string{file, write, read})

	_, err = hostCgroups("proc /proc proc rw 0 0\n")
	assert.Error(t, err)
}
