// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the made files of charts/metaparticle")

// The chart in the repository is the chart of a checkout without a version, to the byte. So whoever
// reads or installs it there sees what a release ships.
func TestChartInRepositoryIsTheMadeChart(t *testing.T) {
	s := settings{manifests: "../../manifests", chart: "../../charts/metaparticle"}
	want, err := s.files()
	require.NoError(t, err)
	there, err := inRepository(s.chart)
	require.NoError(t, err)
	for name, text := range there {
		if name == "Chart.yaml" || name == "values.yaml" { // stamped with the version and the images
			want[name] = text
		}
		if _, made := want[name]; *update && !made {
			require.NoError(t, os.Remove(filepath.Join(s.chart, name)))
			delete(there, name)
		}
	}
	if *update {
		for name, text := range want {
			path := filepath.Join(s.chart, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			there[name] = text
		}
	}
	for name, text := range want {
		assert.Equal(t, text, there[name], "%s: run make golden", name)
	}
	assert.Len(t, there, len(want), "charts/metaparticle has a file that nothing makes: run make golden")
}

// Neither Helm nor a registry of charts follows a relative link, so the links name the repository.
func TestChartNamesOnlyExistingFilesOfTheRepository(t *testing.T) {
	named := 0
	for _, file := range []string{"README.md", "Chart.yaml", "values.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../charts/metaparticle", file))
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`(?:/(?:blob/)?main/|\()([\w./-]+\.(?:md|svg))`).FindAllSubmatch(text, -1) {
			named++
			assert.FileExists(t, filepath.Join("../..", string(match[1])), file)
		}
	}
	assert.NotZero(t, named)
}

func TestTableOfValuesNeedsAnEffectForEachValue(t *testing.T) {
	text, err := withTable(tableBegins+"stale\n"+tableEnds, "# Why\n# and how.\na: {b: 1}\nc:\n  # Inner.\n  d: [x,\n    y]\n",
		`{"properties": {"c": {"description": "Outer."}}}`)
	require.NoError(t, err)
	assert.Contains(t, text, "| `a` | `{b: 1}` | Why and how. |\n| `c` |  | Outer. |\n| `c.d` | `[x, y]` | Inner. |\n"+tableEnds)
	assert.NotContains(t, text, "stale")
	_, err = withTable(tableBegins+tableEnds, "a: 1\n", "{}")
	assert.ErrorContains(t, err, "a has no comment in values.yaml")
}
