// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAgentYieldCommandFindsAgentOfSameContainer(t *testing.T) {
	proc := t.TempDir()
	add := func(name, mounts string, line ...string) {
		require.NoError(t, os.MkdirAll(filepath.Join(proc, name, "ns"), 0o755))
		require.NoError(t, os.Symlink(mounts, filepath.Join(proc, name, "ns", "mnt")))
		var all []byte
		for _, word := range line {
			all = append(append(all, word...), 0)
		}
		require.NoError(t, os.WriteFile(filepath.Join(proc, name, "cmdline"), all, 0o600))
	}
	add("self", "mnt:[2]")
	add("1", "mnt:[1]", "/pause")
	add("7", "mnt:[3]", "/agent", "run", "-slots=another.pods")
	add("9", "mnt:[2]", "/agent", "yield")
	add("11", "mnt:[2]")
	_, err := neighbour(proc)
	require.ErrorContains(t, err, "no agent runs in this container")
	add("8", "mnt:[2]", "/agent", "run", "-slots=lock.desk")
	pid, err := neighbour(proc)
	require.NoError(t, err)
	assert.Equal(t, 8, pid)
}
