// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

// TestClusterTakenDownLeavesNothingBehind brings up a cluster in a temporary directory, injects
// faults, and takes the cluster down. Another cluster may run at the same time.
func TestClusterTakenDownLeavesNothingBehind(t *testing.T) {
	if os.Getenv("METAPARTICLE_CLUSTER_TEST") == "" {
		t.Skip("takes root and a minute: set METAPARTICLE_CLUSTER_TEST=1")
	}
	dir, err := os.MkdirTemp("", "lab-") //nolint:usetesting // after a failure its logs must stay
	require.NoError(t, err)
	t.Cleanup(func() {
		if !t.Failed() { // a failed test keeps its logs
			assert.NoError(t, os.RemoveAll(dir))
		}
	})
	c, err := Open(dir)
	require.NoError(t, err)
	c.Workers, c.Progress = 2, t.Output()
	t.Cleanup(func() {
		assert.NoError(t, c.Down(context.WithoutCancel(t.Context())))
	})
	require.NoError(t, c.Up(t.Context()))
	require.NoError(t, c.AddMetrics(t.Context()))
	require.NoError(t, c.AddMetrics(t.Context()), "twice is harmless")
	members := membersOf(t, c)
	require.NotEmpty(t, members)
	runs := c.PID(state.ControlPlane, "apiserver")
	require.NoError(t, c.Up(t.Context()), "twice is harmless")
	assert.Equal(t, runs, c.PID(state.ControlPlane, "apiserver"))

	t.Run("faults", func(t *testing.T) { breakEverything(t, c) })

	members = membersOf(t, c)
	// In a frozen cgroup of version 1, a killed process ends only after the thaw. Down must end
	// such processes, too.
	require.NoError(t, c.Cut(t.Context(), "n2"))
	require.NoError(t, c.Freeze(t.Context(), "n1"))
	require.NoError(t, c.Down(t.Context()))
	nothingLeft(t, c, members)
	require.NoError(t, c.Down(t.Context()), "twice is harmless")

	require.NoError(t, c.Up(t.Context()))
	members = membersOf(t, c)
	for _, entry := range []string{"run", "bin", "conf", "cluster.json"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, entry)), "as git clean does")
	}
	again, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, again.Down(t.Context()))
	nothingLeft(t, again, members)
}

// nothingLeft checks that the cluster has left no process, mount, cgroup or file
// behind.
func nothingLeft(t *testing.T, c *Cluster, members map[string]bool) {
	t.Helper()
	for process := range everyNamespace(t) {
		assert.NotContains(t, members, process)
	}
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		words, _ := os.ReadFile(file)
		assert.NotContains(t, string(words), c.Path("bin"), file)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), c.Root)
	assert.Empty(t, glob(t, "/sys/fs/cgroup/*/"+c.Cgroup()))
	assert.Empty(t, glob(t, "/sys/fs/cgroup/"+c.Cgroup()))
	left, err := os.ReadDir(c.Root)
	require.NoError(t, err)
	for _, entry := range left {
		assert.Contains(t, []string{"lock", "log"}, entry.Name())
	}
}

func breakEverything(t *testing.T, c *Cluster) {
	ctx := t.Context()
	ready := func(node, want string) {
		t.Helper()
		require.NoError(t, kubectl.Run(ctx, c.Lab, nil, "wait", "--timeout="+wait.ReadyLimit.String(), "--for=condition=Ready="+want, "node/"+node))
	}
	is := func(node, want string) {
		t.Helper()
		status, err := c.Status(ctx)
		require.NoError(t, err)
		for _, n := range status.Nodes {
			if n.Name == node {
				assert.Equal(t, want, n.State)
			}
		}
	}

	// The test kills and starts every component. The API server's address stays the same.
	for _, node := range []string{state.ControlPlane, "n1"} {
		for _, component := range daemon.Components(node) {
			before := c.PID(node, component)
			require.NotZero(t, before, component)
			require.NoError(t, c.Kill(ctx, node, component))
			assert.Zero(t, c.PID(node, component))
			require.NoError(t, c.Start(ctx, node, component))
			require.NoError(t, c.Start(ctx, node, component), "twice is harmless")
			assert.NotEqual(t, before, c.PID(node, component))
		}
	}
	ready("n1", "True")
	pause, err := name.ParseReference(c.Registry() + "/pause:1")
	require.NoError(t, err)
	_, err = remote.Head(pause, remote.WithContext(ctx))
	require.NoError(t, err, "a registry that was killed has its images still")

	require.NoError(t, c.Cut(ctx, "n1"))
	is("n1", "cut")
	assert.Error(t, dialFrom(t, c, "n1"), "nothing crosses the link")
	ready("n1", "Unknown")
	require.NoError(t, c.Heal(ctx, "n1"))
	ready("n1", "True")

	require.NoError(t, c.Freeze(ctx, "n2"))
	is("n2", "frozen")
	assert.ErrorContains(t, c.Kill(ctx, "n2", "kubelet"), "frozen")
	ready("n2", "Unknown")
	require.NoError(t, c.Thaw(ctx, "n2"))
	ready("n2", "True")

	require.NoError(t, c.Crash(ctx, "n2"))
	is("n2", "down")
	ready("n2", "Unknown")
	require.NoError(t, c.Boot(ctx, "n2"))
	is("n2", "up")
	ready("n2", "True")
	require.NoError(t, kubectl.Run(ctx, c.Lab, nil, "-n", "kube-system", "rollout", "status", "--timeout="+wait.ReadyLimit.String(), "daemonset/coredns"))
}

// dialFrom opens a connection from a node to the API server.
func dialFrom(t *testing.T, c *Cluster, node string) error {
	var out bytes.Buffer
	return c.Exec(t.Context(), node, nil, &out, &out,
		"timeout", "2", "bash", "-c", fmt.Sprintf("true >/dev/tcp/%s/6443", state.ControlAddress))
}

// membersOf returns the processes in the cluster's namespaces. The numbers of the
// namespaces would not be enough, because another cluster's new namespaces can get the
// numbers of removed ones.
func membersOf(t *testing.T, c *Cluster) map[string]bool {
	all, mine := everyNamespace(t), map[string]bool{}
	for _, name := range append([]string{state.ControlPlane}, c.Nodes()...) {
		for _, component := range append(daemon.Of(c.Lab, name), state.Holder) {
			for link := range all[identify(process.PID(c.Lab, name, component))] {
				mine[link] = true
			}
		}
	}
	for link := range all[identify(os.Getpid())] {
		delete(mine, link)
	}
	members := map[string]bool{}
	for process, links := range all {
		for link := range links {
			members[process] = members[process] || mine[link]
		}
	}
	maps.DeleteFunc(members, func(_ string, member bool) bool { return !member })
	return members
}

// identify returns a name that no later process gets. The name is empty for a process that
// has ended, even if the host's init has not reaped it yet.
func identify(pid int) string {
	started, err := process.StartTime(pid)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d started at %s", pid, started)
}

// everyNamespace returns the namespaces of each process of the machine.
func everyNamespace(t *testing.T) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, file := range glob(t, "/proc/[0-9]*/ns/*") {
		link, err := os.Readlink(file)
		if err != nil {
			continue // the process has ended
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		require.NoError(t, err)
		process := identify(pid)
		if process == "" {
			continue
		}
		if all[process] == nil {
			all[process] = map[string]bool{}
		}
		all[process][link] = true
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return names
}
