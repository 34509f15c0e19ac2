// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClusterDirectoryUnderANodesMountIsRefused(t *testing.T) {
	for _, dir := range []string{"/run/lab", "/var/lib/lab", "/var/log", "/proc/lab"} {
		_, err := Open(dir)
		assert.ErrorContains(t, err, "must not be below", dir)
	}
	_, err := Open(filepath.Join(t.TempDir(), "var", "lib"))
	assert.NoError(t, err)
}

func TestClusterDirectoryComesFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("METAPARTICLE_CLUSTER_DIR", dir)
	l, err := Open("")
	require.NoError(t, err)
	assert.Equal(t, dir, l.Dir())

	t.Setenv("METAPARTICLE_CLUSTER_DIR", "")
	l, err = Open("")
	require.NoError(t, err)
	assert.Equal(t, ".cluster", filepath.Base(l.Dir()))
	assert.DirExists(t, filepath.Join(filepath.Dir(l.Dir()), "test", "cluster"))
}

func TestEachClusterDirectoryHasItsOwnCgroup(t *testing.T) {
	one, other := &Lab{Root: "/a/.cluster"}, &Lab{Root: "/b/.cluster"}
	assert.NotEqual(t, one.Cgroup(), other.Cgroup())
	assert.Len(t, one.Cgroup(), len("metaparticle-")+8)
}

func TestReopenedClusterDirectoryHasTheSavedState(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir)
	require.NoError(t, err)
	assert.Empty(t, l.Nodes())
	l.Saved = Saved{Workers: 2, APIPort: 1234, RegistryPort: 5678}
	require.NoError(t, l.Save())

	again, err := Open(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"n1", "n2"}, again.Nodes())
	assert.Equal(t, "127.0.0.1:5678", again.Registry())
}

func TestNodeNumberDeterminesTheNodesAddress(t *testing.T) {
	l := &Lab{Saved: Saved{Workers: 3}}
	n, err := l.Node("n3")
	require.NoError(t, err)
	assert.Equal(t, "10.213.0.13", n.Address())
	assert.Equal(t, "10.214.3.0/24", n.Subnet())
	cp, err := l.Node(ControlPlane)
	require.NoError(t, err)
	assert.Equal(t, "10.213.0.1", cp.Address())
	_, err = l.Node("n4")
	assert.EqualError(t, err, `no node "n4": there are cp and n1, n2, n3`)
}
