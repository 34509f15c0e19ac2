// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// shimRoles are the roles of the shim's program (cmd/shim).
var shimRoles = shim.Roles{api.ExecRole: shim.ExecRole, api.ProbeRole: shim.ProbeRole}

// As in the image, the shim's program lies beside the agent's program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent":     main,
		shimProgram: func() { os.Exit(shimRoles.Run(context.Background(), os.Args[1:], shimProgram)) },
	})
}

// TestAgentBinaryFulfillsEachScriptInTestdata runs the scripts in testdata. If the test does not
// run as root, the scripts skip the parts that need root.
func TestAgentBinaryFulfillsEachScriptInTestdata(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getuid() == 0, nil
		},
	})
}

func TestAgentDerivesShardCountFromItsSlots(t *testing.T) {
	run := api.DefaultRunArgs()
	run.Slots, run.Any, run.Readiness = api.Claim{Kind: api.Shards, Size: 3}.Slots(api.Workload{Group: "apps", Kind: "Deployment", Name: "web"}), true, api.ReadinessAll
	s, err := parseRun(run.Args()[1:], func(string) string { return "" })
	require.NoError(t, err)
	assert.Equal(t, 3, s.config.Shards)
	run.Slots, run.Any = []string{"lock.a"}, false
	s, err = parseRun(run.Args()[1:], func(string) string { return "" })
	require.NoError(t, err)
	assert.Zero(t, s.config.Shards)
}

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
