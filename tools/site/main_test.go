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

func TestSiteCommandReplacesOnlyFoldersOfEarlierSites(t *testing.T) {
	const root = "../.."
	out := filepath.Join(t.TempDir(), "out", "site")
	require.NoError(t, run(root, out))
	assert.FileExists(t, filepath.Join(out, "tutorials", "nightly-job.html"))
	page, err := os.ReadFile(filepath.Join(out, "tutorials", "nightly-job.html"))
	require.NoError(t, err)
	assert.Contains(t, string(page), `<span class="k">kind</span>`, "YAML has colours")
	old := filepath.Join(out, "old.html")
	require.NoError(t, os.WriteFile(old, nil, 0o644))
	require.NoError(t, run(root, out))
	assert.NoFileExists(t, old)

	other := t.TempDir()
	kept := filepath.Join(other, "letters.txt")
	require.NoError(t, os.WriteFile(kept, nil, 0o644))
	assert.ErrorContains(t, run(root, other), "is no folder of an earlier site")
	assert.FileExists(t, kept)
}

func TestSiteToolFailsIfRepositoryFilesAreMissing(t *testing.T) {
	out := filepath.Join(t.TempDir(), "site")
	assert.ErrorContains(t, run(t.TempDir(), out), "names no file of this repository")
	assert.NoDirExists(t, out)
}
