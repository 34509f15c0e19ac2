// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// resolve evaluates the conditions of a merged text, as Helm does.
func resolve(t *testing.T, merged []string, set map[string]bool) string {
	t.Helper()
	var out strings.Builder
	on := true
	for _, line := range merged {
		switch {
		case strings.HasPrefix(line, "{{- if not ("):
			on = !set[strings.TrimSuffix(strings.TrimPrefix(line, "{{- if not ("), ") }}\n")]
		case strings.HasPrefix(line, "{{- if "):
			on = set[strings.TrimSuffix(strings.TrimPrefix(line, "{{- if "), " }}\n")]
		case line == "{{- else }}\n":
			on = !on
		case line == "{{- end }}\n":
			on = true
		case on:
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestMergedTemplateYieldsTextsWithAndWithoutComponent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() (lines []string) {
		for range random.IntN(8) {
			lines = append(lines, string(rune('a'+random.IntN(4)))+"\n")
		}
		return lines
	}
	for range 2000 {
		before, after := text(), text()
		merged, err := merge(before, compare(before, after, "c"))
		require.NoError(t, err)
		assert.Equal(t, strings.Join(before, ""), resolve(t, merged, nil), "%q %q", before, after)
		assert.Equal(t, strings.Join(after, ""), resolve(t, merged, map[string]bool{"c": true}), "%q %q", before, after)
	}
}

func TestChartMergeRefusesTwoChangesOfOneLine(t *testing.T) {
	base := []string{"a\n", "b\n", "c\n"}
	changes := append(compare(base, []string{"a\n", "x\n", "c\n"}, "x"), compare(base, []string{"a\n", "y\n", "c\n"}, "y")...)
	_, err := merge(base, changes)
	assert.ErrorContains(t, err, "line 2: two components replace the same lines")
	merged, err := merge(base, append(compare(base, []string{"a\n", "b\n", "x\n", "c\n"}, "x"), compare(base, []string{"a\n", "b\n", "y\n", "c\n"}, "y")...))
	require.NoError(t, err)
	assert.Equal(t, "a\nb\nx\ny\nc\n", resolve(t, merged, map[string]bool{"x": true, "y": true}))
}

// TestManifestsHaveEachFieldThatTheChartFills requires for each element of the table "places" that
// an object of the manifests has the element's field.
func TestManifestsHaveEachFieldThatTheChartFills(t *testing.T) {
	found := map[string]bool{}
	for _, selection := range [][]string{nil, {"host-network"}, {"client-ca"}, {"monitoring"}, {"console"}} {
		all, err := sources("../../manifests", selection...)
		require.NoError(t, err)
		for _, object := range all {
			text := strings.Join(object.lines, "")
			for number := range places {
				if strings.Contains(text, placeholder(number)) {
					found[placeholder(number)] = true
				}
			}
		}
	}
	for number, p := range places {
		assert.True(t, found[placeholder(number)], "%s %v", p.kind, p.path)
	}
}

func TestExpandedChartTemplateKeepsTheManifestsIndentation(t *testing.T) {
	object := yaml.MustParse("kind: Deployment\nmetadata:\n  name: metaparticle-webhook\nspec:\n  replicas: 2\n  template:\n    spec:\n      nodeSelector: {}\n")
	require.NoError(t, sign(object))
	text, err := expand(object.MustString())
	require.NoError(t, err)
	assert.Contains(t, text, "  replicas: {{ include \"metaparticle.replicas\" . }}\n")
	assert.Contains(t, text, "\n      nodeSelector:\n      {{- toYaml .Values.nodeSelector | nindent 8 }}\n")
	_, err = expand("zPLACE999")
	assert.Error(t, err)
}

func TestSemanticVersionDerivesFromTagOrCommit(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3-4-gabc1234-dirty": "1.2.3-4-gabc1234-dirty",
		"dev": "0.0.0-gdev", "01234567": "0.0.0-g01234567", "a_b": "0.0.0-ga-b", "v1.2": "0.0.0-gv1-2",
	} {
		assert.Equal(t, want, semantic(version), version)
	}
}

// The chart refuses an installation without a registry, so the proposed command must name one.
func TestProposedInstallationNamesARegistry(t *testing.T) {
	for registry, names := range map[string]bool{"": true, "r.example/m": false} {
		var said strings.Builder
		require.NoError(t, run([]string{"-manifests", "../../manifests", "-chart", "../../charts/metaparticle", "-out", t.TempDir(), "-registry", registry}, &said))
		assert.Equal(t, names, strings.Contains(said.String(), " --wait --set image.registry=HOST/PREFIX\n"), said.String())
	}
}

func TestChartHasTheGivenImagesAndVersion(t *testing.T) {
	directory := t.TempDir()
	stale := filepath.Join(directory, "metaparticle", "templates", "stale.yaml")
	require.NoError(t, os.MkdirAll(filepath.Dir(stale), 0o755))
	require.NoError(t, os.WriteFile(stale, []byte("a: b"), 0o600))
	require.NoError(t, run([]string{"-manifests", "../../manifests", "-chart", "../../charts/metaparticle", "-out", directory, "-version", "v1.2.3", "-registry", "r.example/m",
		"-webhook-digest", "sha256:1", "-agent-digest", "sha256:2"}, new(strings.Builder)))
	assert.NoFileExists(t, stale)
	text := func(name string) string {
		read, err := os.ReadFile(filepath.Join(directory, "metaparticle", name))
		require.NoError(t, err)
		return string(read)
	}
	assert.Contains(t, text("Chart.yaml"), "\nversion: 1.2.3\nappVersion: \"v1.2.3\"\n")
	values := text("values.yaml")
	assert.Contains(t, values, "registry: \"r.example/m\"\n")
	assert.Less(t, strings.Index(values, "sha256:1"), strings.Index(values, "repository: agent"))
	assert.Less(t, strings.Index(values, "repository: agent"), strings.Index(values, "sha256:2"))
}
