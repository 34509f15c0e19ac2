// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCgroupHierarchiesAreFoundInMountTable(t *testing.T) {
	hybrid := `tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
`
	groups, err := parse(hybrid)
	require.NoError(t, err)
	assert.False(t, groups.unified)
	assert.Equal(t, []string{"/sys/fs/cgroup/cpu/lab/n1", "/sys/fs/cgroup/freezer/lab/n1"}, groups.Dirs("lab/n1"))
	assert.Contains(t, groups.all, "/sys/fs/cgroup/unified")
	file, write, read := groups.freezeFile("lab/n1", true)
	assert.Equal(t, []string{"/sys/fs/cgroup/freezer/lab/n1/freezer.state", "FROZEN", "FROZEN"}, []string{file, write, read})

	groups, err = parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
	require.NoError(t, err)
	assert.True(t, groups.unified)
	file, write, read = groups.freezeFile("lab/n1", false)
	assert.Equal(t, []string{"/sys/fs/cgroup/lab/n1/cgroup.freeze", "0", "frozen 0"}, []string{file, write, read})

	_, err = parse("proc /proc proc rw 0 0\n")
	assert.Error(t, err)
}

func TestWeightIsWrittenWhereTheProcessorControllerIs(t *testing.T) {
	for _, c := range []struct {
		unified bool
		file    string
		weight  string
	}{{false, "cpu.shares", "8192"}, {true, "cpu.weight", "800"}} {
		cpu, freezer := t.TempDir(), t.TempDir()
		file := filepath.Join(cpu, "lab", c.file)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.NoError(t, Groups{joined: []string{freezer, cpu}, unified: c.unified}.Weigh("lab", 8))
		written, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, c.weight, string(written))
		assert.NoFileExists(t, filepath.Join(freezer, "lab", c.file))
	}
}
