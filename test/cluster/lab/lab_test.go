// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

func TestStoppedClusterRefusesFaultsAndImagePushes(t *testing.T) {
	c, err := Open(t.TempDir())
	require.NoError(t, err)
	assert.ErrorIs(t, c.Cut(t.Context(), "n1"), state.ErrDown)
	assert.ErrorIs(t, c.Kill(t.Context(), "n1", "kubelet"), state.ErrDown)
	_, err = c.Push(t.Context(), "image.tar", "demo/image:1")
	assert.ErrorIs(t, err, state.ErrDown)
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.False(t, status.Up)
}

// Two programs share a compiled package only if both have the same versions of the modules
// that the package imports. With two versions of golang.org/x/sys, the first build on a
// machine would compile client-go twice.
func TestGoModFilesAgreeOnEachModulesVersion(t *testing.T) {
	root, err := state.Repository()
	require.NoError(t, err)
	versions := map[string]map[string][]string{}
	for _, dir := range []string{
		".", "test", "test/cluster/programs/kubernetes", "test/cluster/programs/containerd",
		"test/cluster/programs/chart", "test/cluster/programs/certmanager", "test/cluster/programs/coredns",
	} {
		for module, version := range requirements(t, filepath.Join(root, dir, "go.mod")) {
			if versions[module] == nil {
				versions[module] = map[string][]string{}
			}
			versions[module][version] = append(versions[module][version], dir)
		}
	}
	for module, users := range versions {
		assert.Len(t, users, 1, "%s: give every go.mod the highest of these versions, then go mod tidy", module)
	}
}

// requirements reads the versions that a go.mod requires. A replaced module, such as a
// staging module of Kubernetes, counts with the version of its replacement.
func requirements(t *testing.T, file string) map[string]string {
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	// The go.mod files may require different versions of cel-go, because the API server must
	// evaluate policies with the version of its own release.
	const own = "github.com/google/cel-go"
	found := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^\s*(?:require )?(\S+\.\S+/\S+|\S+\.\S+) (v\d\S+)`).FindAllStringSubmatch(string(data), -1) {
		if module := match[1]; match[2] != "v0.0.0" && module != own {
			found[module] = match[2]
		}
	}
	for _, match := range regexp.MustCompile(`(?m)^\s*(?:replace )?(\S+) => \S+ (v\S+)`).FindAllStringSubmatch(string(data), -1) {
		found[match[1]] = match[2]
	}
	require.Greater(t, len(found), 10, strings.TrimSpace(file))
	return found
}
