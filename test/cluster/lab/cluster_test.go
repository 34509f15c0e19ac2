// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestClusterLeavesNothingBehind brings a second cluster up, beside whatever
// runs, breaks it in every way there is, and takes it down.
func TestClusterLeavesNothingBehind(t *testing.T) {
	if os.Getenv("METAPARTICLE_CLUSTER_TEST") == "" {
		t.Skip("takes root and a minute: set METAPARTICLE_CLUSTER_TEST=1")
	}
	dir, err := os.MkdirTemp("", "lab-") //nolint:usetesting // after a failure its logs must stay
	require.NoError(t, err)
	t.Cleanup(func() {
		if !t.Failed() { // the logs are there
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
	began := time.Now()
	require.NoError(t, c.Up(t.Context()), "twice is harmless")
	assert.Less(t, time.Since(began), time.Second)

	t.Run("faults", func(t *testing.T) { breakEverything(t, c) })

	namespaces := namespacesOf(t, c)
	require.NotEmpty(t, namespaces)
	// What does not run cannot be killed: Down must manage all the same.
	require.NoError(t, c.Cut(t.Context(), "n2"))
	require.NoError(t, c.Freeze(t.Context(), "n1"))
	require.NoError(t, c.Down(t.Context()))
	nothingLeft(t, c, namespaces)
	require.NoError(t, c.Down(t.Context()), "twice is harmless")

	require.NoError(t, c.Up(t.Context()))
	namespaces = namespacesOf(t, c)
	for _, entry := range []string{"run", "bin", "conf", "cluster.json"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, entry)), "as git clean does")
	}
	again, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, again.Down(t.Context()))
	nothingLeft(t, again, namespaces)
}

// nothingLeft looks for whatever a cluster can leave behind.
func nothingLeft(t *testing.T, c *Cluster, namespaces map[string]bool) {
	t.Helper()
	for pid, links := range everyNamespace(t) {
		for link := range links {
			assert.NotContains(t, namespaces, link, "held by process %s", pid)
		}
	}
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		words, _ := os.ReadFile(file)
		assert.NotContains(t, string(words), c.path("bin"), file)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	assert.NotContains(t, string(mounts), c.dir)
	assert.Empty(t, glob(t, "/sys/fs/cgroup/*/"+c.cgroup()))
	assert.Empty(t, glob(t, "/sys/fs/cgroup/"+c.cgroup()))
	left, err := os.ReadDir(c.dir)
	require.NoError(t, err)
	for _, entry := range left {
		assert.Contains(t, []string{"lock", "log"}, entry.Name())
	}
}

func breakEverything(t *testing.T, c *Cluster) {
	ctx := t.Context()
	ready := func(node, want string) {
		t.Helper()
		require.NoError(t, c.kubectl(ctx, nil, "wait", "--timeout=60s", "--for=condition=Ready="+want, "node/"+node))
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

	// Every component is killed and started; the API server's address stays.
	for _, node := range []string{ControlPlane, "n1"} {
		for _, component := range Components(node) {
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
	require.NoError(t, c.kubectl(ctx, nil, "-n", "kube-system", "rollout", "status", "--timeout=60s", "daemonset/coredns"))
}

// dialFrom opens a connection from a node to the API server.
func dialFrom(t *testing.T, c *Cluster, node string) error {
	var out bytes.Buffer
	return c.Exec(t.Context(), node, nil, &out, &out,
		"timeout", "2", "bash", "-c", fmt.Sprintf("true >/dev/tcp/%s/6443", controlAddress))
}

// namespacesOf are the namespaces that only the cluster's processes are in.
func namespacesOf(t *testing.T, c *Cluster) map[string]bool {
	mine := map[string]bool{}
	all := everyNamespace(t)
	for _, name := range append([]string{ControlPlane}, c.Nodes()...) {
		for _, components := range append(Components(name), holderName) {
			for link := range all[fmt.Sprint(c.pid(name, components))] {
				mine[link] = true
			}
		}
	}
	for link := range all["self"] {
		delete(mine, link)
	}
	return mine
}

// everyNamespace is which namespaces each process of the machine is in.
func everyNamespace(t *testing.T) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, file := range append(glob(t, "/proc/[0-9]*/ns/*"), glob(t, "/proc/self/ns/*")...) {
		link, err := os.Readlink(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid := strings.Split(file, "/")[2]
		if number, err := strconv.Atoi(pid); err == nil {
			if _, err := startTime(number); err != nil {
				continue // it has ended, and waits for the host's init to notice
			}
		}
		if all[pid] == nil {
			all[pid] = map[string]bool{}
		}
		all[pid][link] = true
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return names
}
