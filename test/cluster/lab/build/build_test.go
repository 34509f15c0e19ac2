// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// The test compares the versions in the programs' go.mod files with the versions that the function
// Programs demands.
func TestGoModFilesRequireThePinnedVersions(t *testing.T) {
	l, err := state.Open(t.TempDir())
	require.NoError(t, err)
	for version, certManager := range map[string]string{"": "", "1.33": "oldest", "v1.35": ""} {
		t.Setenv("METAPARTICLE_KUBERNETES", version)
		t.Setenv("METAPARTICLE_CERTMANAGER", certManager)
		l, err := state.Open(l.Root)
		require.NoError(t, err)
		assert.Contains(t, l.Kubernetes, version)
		for _, p := range Programs(l) {
			key, err := p.key(p.source(l))
			require.NoError(t, err, p.name)
			assert.Contains(t, key, p.version, p.name)
		}
	}
	t.Setenv("METAPARTICLE_CERTMANAGER", "1.12")
	_, err = state.Open(l.Root)
	assert.ErrorContains(t, err, `no cert-manager "1.12": choose oldest (v1.13.0), or nothing for v1.`)
	t.Setenv("METAPARTICLE_CERTMANAGER", "")
	t.Setenv("METAPARTICLE_KUBERNETES", "1.3")
	_, err = state.Open(l.Root)
	assert.ErrorContains(t, err, "no Kubernetes v1.3: choose one of "+state.KubernetesVersion+", v1.33.")
}

func TestOldestCertManagerIsTheOnePromised(t *testing.T) {
	root, err := state.Repository()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "manifests", "kustomization.yaml"))
	require.NoError(t, err)
	promised := regexp.MustCompile(`cert-manager (\d+\.\d+) or later`).FindStringSubmatch(string(text))
	require.NotEmpty(t, promised)
	assert.Equal(t, "v"+promised[1]+".0", state.OldestCertManager)
}

func TestBuildCacheFolderChangesWithSourcesAndFlags(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	write("go.mod", "module x\n\nrequire (\n\texample.com/m v1.2.3\n)\n")
	write("main.go", "package main")
	p := Program{name: "x", module: "example.com/m", version: "v1.2.3"}
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

func TestProgressLineShowsCompiledAndExpectedPackages(t *testing.T) {
	p := &progress{title: "building x", what: "packages compiled", done: 7}
	assert.Equal(t, "building x: 7 packages compiled, 65 s", p.line(65*time.Second))
	p.total = 9
	assert.Equal(t, "building x: 7 of 9 packages compiled, 65 s", p.line(65*time.Second))
	p.done = 9
	assert.Equal(t, "building x: 9 of 9 packages compiled, linking, 65 s", p.line(65*time.Second))
}

func TestMissingToolsAreMappedToDebianPackages(t *testing.T) {
	assert.Equal(t, []string{"nftables", "runc"}, missingPackages(func(name string) (string, error) {
		if name == "nft" || name == "runc" {
			return "", os.ErrNotExist
		}
		return "/bin/" + name, nil
	}))
}
