// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// forContributors returns the paths of CONTRIBUTING.md and of all files in the folder .github.
func forContributors(t *testing.T) []string {
	t.Helper()
	found := []string{filepath.Join(root, "CONTRIBUTING.md")}
	require.NoError(t, filepath.WalkDir(filepath.Join(root, ".github"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, path)
		}
		return err
	}))
	return found
}

var (
	// path matches a path in backquotes, such as `agent/lease` or `docs/rows_test.go`. A command in
	// backquotes does not match. A colon precedes the name of a function of the file.
	path = regexp.MustCompile("`(\\.?\\w[\\w.-]*(?:/[\\w.*-]+)+/?(?::\\w+)?|\\w+\\.(?:md|go|txt))`")
	// placeholder matches a placeholder for a name that the contributor chooses.
	placeholder = regexp.MustCompile(`\b[A-Z]{3,}\b`)
	target      = regexp.MustCompile("`make ([a-z0-9-]+)")
	goal        = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
)

func TestContributingPageCitesOnlyExistingFilesAndTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	goals := map[string]bool{}
	for _, match := range goal.FindAllStringSubmatch(string(makefile), -1) {
		goals[match[1]] = true
	}
	paths := 0
	for _, file := range forContributors(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range path.FindAllStringSubmatch(string(text), -1) {
			paths++
			pattern := match[1]
			if file, name, ok := strings.Cut(pattern, ":"); ok {
				source, err := os.ReadFile(filepath.Join(root, file))
				require.NoError(t, err, "%s names it", match[1])
				assert.Regexp(t, `(?m)^func (\([^)]*\) )?`+name+`\(`, string(source), file)
				continue
			}
			if filepath.Ext(pattern) != ".md" {
				pattern = placeholder.ReplaceAllString(pattern, "*")
			}
			found, err := filepath.Glob(filepath.Join(root, strings.TrimSuffix(pattern, "/")))
			require.NoError(t, err)
			assert.NotEmpty(t, found, "%s names %s, which does not exist", file, match[1])
		}
		for _, match := range target.FindAllStringSubmatch(string(text), -1) {
			assert.True(t, goals[match[1]], "%s names make %s, which does not exist", file, match[1])
		}
	}
	assert.NotZero(t, paths)
}
