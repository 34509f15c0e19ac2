// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpenRefusesDirectoriesThatNodesMountOver(t *testing.T) {
	for _, dir := range []string{"/run/lab", "/var/lib/lab", "/var/log", "/proc/lab"} {
		_, err := Open(dir)
		assert.ErrorContains(t, err, "must not be below", dir)
	}
	_, err := Open(filepath.Join(t.TempDir(), "var", "lib"))
	assert.NoError(t, err)
}

func TestStateDirectoryComesFromTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("METAPARTICLE_CLUSTER_DIR", dir)
	c, err := Open("")
	require.NoError(t, err)
	assert.Equal(t, dir, c.Dir())

	t.Setenv("METAPARTICLE_CLUSTER_DIR", "")
	c, err = Open("")
	require.NoError(t, err)
	assert.Equal(t, ".cluster", filepath.Base(c.Dir()))
	assert.DirExists(t, filepath.Join(filepath.Dir(c.Dir()), "test", "cluster"))
}

func TestTwoDirectoriesAreTwoCgroups(t *testing.T) {
	one, other := &Cluster{dir: "/a/.cluster"}, &Cluster{dir: "/b/.cluster"}
	assert.NotEqual(t, one.cgroup(), other.cgroup())
	assert.Len(t, one.cgroup(), len("metaparticle-")+8)
}

func TestStateIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	c, err := Open(dir)
	require.NoError(t, err)
	assert.Empty(t, c.Nodes())
	c.state = state{Workers: 2, APIPort: 1234, RegistryPort: 5678}
	require.NoError(t, c.save())

	again, err := Open(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"n1", "n2"}, again.Nodes())
	assert.Equal(t, "127.0.0.1:5678", again.Registry())
}

func TestNodes(t *testing.T) {
	c := &Cluster{state: state{Workers: 3}}
	n, err := c.node("n3")
	require.NoError(t, err)
	assert.Equal(t, "10.213.0.13", n.address())
	assert.Equal(t, "10.214.3.0/24", n.subnet())
	cp, err := c.node(ControlPlane)
	require.NoError(t, err)
	assert.Equal(t, "10.213.0.1", cp.address())
	_, err = c.node("n4")
	assert.EqualError(t, err, `no node "n4": there are cp and n1, n2, n3`)
}

func TestEveryComponentHasACommand(t *testing.T) {
	c := &Cluster{dir: "/lab", state: state{Workers: 1}}
	for _, name := range []string{ControlPlane, "n1"} {
		n, err := c.node(name)
		require.NoError(t, err)
		for _, component := range Components(name) {
			assert.NotEmpty(t, c.command(n, component), component)
		}
	}
}

func TestTemplatesAreComplete(t *testing.T) {
	c := &Cluster{dir: "/lab", state: state{Workers: 1}}
	n, err := c.node("n1")
	require.NoError(t, err)
	entries, err := templateFiles.ReadDir("templates")
	require.NoError(t, err)
	for _, entry := range entries {
		data, err := render(entry.Name(), c.values(n))
		require.NoError(t, err, entry.Name())
		assert.NotContains(t, string(data), "no value", entry.Name())
		assert.NotContains(t, string(data), "{{", entry.Name())
	}
}

func TestFaultsNeedACluster(t *testing.T) {
	c, err := Open(t.TempDir())
	require.NoError(t, err)
	assert.ErrorIs(t, c.Cut(t.Context(), "n1"), ErrDown)
	assert.ErrorIs(t, c.Kill(t.Context(), "n1", "kubelet"), ErrDown)
	_, err = c.Push(t.Context(), "image.tar", "demo/image:1")
	assert.ErrorIs(t, err, ErrDown)
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.False(t, status.Up)
}

func TestStartTime(t *testing.T) {
	stat := "42 (a) b (c)) S 1 " + strings.Repeat("0 ", 17) + "98765 1 2 3"
	start, err := parseStartTime(stat)
	require.NoError(t, err)
	assert.Equal(t, "98765", start)

	_, err = parseStartTime(strings.Replace(stat, ") S ", ") Z ", 1))
	assert.ErrorIs(t, err, os.ErrNotExist, "a zombie does not run")
	_, err = parseStartTime("42 (a) S 1")
	assert.Error(t, err)
}

func TestPIDIsNotBelievedWithoutItsStartTime(t *testing.T) {
	c := &Cluster{dir: t.TempDir()}
	require.NoError(t, os.Mkdir(c.path("run"), 0o755))
	assert.Zero(t, c.pid("n1", "kubelet"))

	self, err := startTime(os.Getpid())
	require.NoError(t, err)
	for record, want := range map[string]int{self: os.Getpid(), "1": 0} {
		line := []byte(strings.Join([]string{strconv.Itoa(os.Getpid()), record}, " "))
		require.NoError(t, os.WriteFile(c.recordFile("n1", "kubelet"), line, 0o600))
		assert.Equal(t, want, c.pid("n1", "kubelet"))
	}
}

func TestCutLinks(t *testing.T) {
	out := `4: vn1@if2: <BROADCAST,MULTICAST> mtu 1500 qdisc noqueue master br0 state DOWN
5: vn2@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP
`
	assert.Equal(t, map[string]bool{"vn1": true, "vn2": false}, parseCutLinks(out))
}

func TestMissingPackages(t *testing.T) {
	assert.Equal(t, []string{"nftables", "runc"}, missingPackages(func(name string) (string, error) {
		if name == "nft" || name == "runc" {
			return "", os.ErrNotExist
		}
		return "/bin/" + name, nil
	}))
}
