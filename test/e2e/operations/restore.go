// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// etcdutl builds etcd's own tool for restores.
func etcdutl(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "etcdutl")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../etcdutl", "-trimpath", "-o", binary, "go.etcd.io/etcd/etcdutl/v3")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// saved copies the database of etcd while etcd stands still.
func saved(t *testing.T, l *lab.Cluster) string {
	t.Helper()
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	start := fault.Component(t, l, lab.ControlPlane, "etcd")
	data, err := os.ReadFile(l.Path("etcd", "member", "snap", "db"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(snapshot, data, 0o600))
	start()
	fault.AwaitAPI(t)
	return snapshot
}

// restore replaces the data of the stopped etcd by the data of the snapshot. New revisions are
// higher than all revisions before the restore.
func restore(t *testing.T, l *lab.Cluster, tool, snapshot string) {
	t.Helper()
	restored, lost := l.Path("etcd.restored"), l.Path("etcd.lost")
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(lost)) })
	const peer = "http://127.0.0.1:2380"
	out, err := exec.CommandContext(t.Context(), tool, "snapshot", "restore", snapshot, "--skip-hash-check", "--data-dir="+restored,
		"--bump-revision=1000000000", "--mark-compacted",
		"--name=cp", "--initial-cluster=cp="+peer, "--initial-advertise-peer-urls="+peer).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Rename(l.Path("etcd"), lost))
	require.NoError(t, os.Rename(restored, l.Path("etcd")))
}

// The snapshot is older than the hold of the running application, as docs/disaster.md describes.
func TestRestoredEtcdKeepsSlotsExclusive(t *testing.T) {
	tool := etcdutl(t)
	h := holder.Deploy(t, app.Suffering("restored"), "it restores etcd")
	snapshot := saved(t, h.Lab)
	app.DeletePod(h.Space, h.Victim)
	var second *record.Process
	h.Await(space.StartTimeout, "another pod holds", func() bool {
		second = app.After(h.Space, h.App, h.Before)
		return second != nil
	})

	startEtcd := fault.Component(t, h.Lab, lab.ControlPlane, "etcd")
	startAPI := fault.Component(t, h.Lab, lab.ControlPlane, "apiserver")
	require.True(t, h.Within(lease.Fault, func() bool { return app.Vacant(h.Space, h.App.Name) }),
		"within a lease duration without an API server, the application has stopped")
	restore(t, h.Lab, tool, snapshot)
	startEtcd()
	startAPI()
	fault.AwaitAPI(t)
	for _, node := range h.Lab.Nodes() {
		fault.AwaitNode(t, node)
	}

	var third *record.Process
	h.Await(space.StartTimeout, "the application runs again", func() bool {
		third = app.After(h.Space, h.App, second)
		return third != nil
	})
	token := func(p *record.Process) int {
		t.Helper()
		n, err := strconv.Atoi(p.Token)
		require.NoError(t, err)
		return n
	}
	t.Logf("tokens: %d, then %d, and %d after the restore", token(h.Before), token(second), token(third))
	assert.Greater(t, token(second), token(h.Before))
	assert.Greater(t, token(third), token(second), "a token never goes back")
	app.DeletePod(h.Space, h.Pod(third.Pod))
	h.Await(space.StartTimeout, "another pod takes over", func() bool { return app.After(h.Space, h.App, third) != nil })
}
