// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// host is the platform of this machine. Other tests also compile for this platform, so the
// compiler's cache has most packages.
var host = "linux/" + runtime.GOARCH

// made makes a release in a directory of its own, and returns its files by name.
func made(t *testing.T, args ...string) map[string][]byte {
	t.Helper()
	out := t.TempDir()
	var said bytes.Buffer
	args = append([]string{"-version", "v1.2.3", "-out", out, "-platforms", host, "-plugins", host}, args...)
	require.NoError(t, run(t.Context(), args, &said))
	entries, err := os.ReadDir(filepath.Join(out, "v1.2.3"))
	require.NoError(t, err)
	files := map[string][]byte{}
	for _, entry := range entries {
		files[entry.Name()], err = os.ReadFile(filepath.Join(out, "v1.2.3", entry.Name()))
		require.NoError(t, err)
	}
	assert.Contains(t, said.String(), string(files[sums]))
	return files
}

// copied copies the sources of a release into another directory, and returns that directory.
func copied(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || slices.Contains([]string{"out", "sim", "test"}, name) {
			continue
		}
		info, err := os.Stat(name)
		require.NoError(t, err)
		to := filepath.Join(directory, name)
		if info.IsDir() {
			require.NoError(t, os.CopyFS(to, os.DirFS(name)))
			continue
		}
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, content, 0o600))
	}
	return directory
}

func TestBuiltReleasesOfEqualSourcesAreEqual(t *testing.T) {
	t.Chdir("../..")
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	where := strings.TrimPrefix(server.URL, "http://") + "/metaparticle"
	first := made(t, "-registry", where, "-push-to", where, "-insecure", "-address", "https://downloads.example")
	t.Chdir(copied(t))
	// The second release is made with other settings of Go, as on another machine.
	settings := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(settings, []byte("GOAMD64=v3\nGOARM64=v9.0\nGOFLAGS=-ldflags=-w\n"), 0o600))
	t.Setenv("GOENV", settings)
	require.NoError(t, os.WriteFile("go.work", []byte("go 1.26.0\n"), 0o600))
	second := made(t, "-registry", where, "-address", "https://downloads.example")
	t.Run("made files are pushed later", func(t *testing.T) { pushesMadeFiles(t, second) })
	var names []string
	for name := range first {
		names = append(names, name)
		assert.True(t, bytes.Equal(first[name], second[name]), name)
	}
	arch := "linux_" + runtime.GOARCH
	assert.ElementsMatch(t, []string{
		"webhook.tar", "agent.tar", "install.yaml", "metaparticle-1.2.3.tgz", "kubectl-metaparticle_" + arch + ".tar.gz", "metaparticle.yaml",
		"references.txt", "rules.yaml", "prometheusrule.yaml", "dashboard.json", "webhook_" + arch + ".cdx.json", "agent_" + arch + ".cdx.json", "kubectl-metaparticle_" + arch + ".cdx.json", sums,
	}, names)
	assert.Equal(t, len(names), 1+strings.Count(string(first[sums]), "\n"))

	// The installation and the chart name the very images that the registry has.
	for _, image := range []string{"webhook", "agent"} {
		tag, err := name.NewTag(where+"/"+image+":v1.2.3", name.Insecure)
		require.NoError(t, err)
		index, err := remote.Index(tag)
		require.NoError(t, err)
		digest, err := index.Digest()
		require.NoError(t, err)
		assert.Contains(t, string(first["install.yaml"]), where+"/"+image+"@"+digest.String())
		assert.Contains(t, unpacked(t, first["metaparticle-1.2.3.tgz"])["metaparticle/values.yaml"], fmt.Sprintf("digest: %q", digest))
	}
	chart := unpacked(t, first["metaparticle-1.2.3.tgz"])
	assert.Contains(t, chart["metaparticle/Chart.yaml"], "version: 1.2.3\n")
	tag, err := name.NewTag(where+"/metaparticle:1.2.3", name.Insecure)
	require.NoError(t, err)
	pushed, err := remote.Image(tag)
	require.NoError(t, err)
	raw, err := pushed.RawManifest()
	require.NoError(t, err)
	var manifest v1.Manifest
	require.NoError(t, json.Unmarshal(raw, &manifest))
	assert.Equal(t, helmConfig, manifest.Config.MediaType)
	assert.Equal(t, "https://github.com/metaparticle-io/metaparticle", manifest.Annotations["org.opencontainers.image.source"])
	digest, err := pushed.Digest()
	require.NoError(t, err)
	references := strings.Split(strings.TrimSpace(string(first["references.txt"])), "\n")
	require.Len(t, references, 3)
	assert.Equal(t, where+"/metaparticle@"+digest.String(), references[1])
	assert.Contains(t, string(first["install.yaml"]), references[0])
	assert.Contains(t, string(first["install.yaml"]), references[2])
	config, err := pushed.RawConfigFile()
	require.NoError(t, err)
	assert.Contains(t, string(config), `"kubeVersion":"\u003e=1.33.0-0"`)
	require.Len(t, manifest.Layers, 1)
	assert.Equal(t, helmChart, manifest.Layers[0].MediaType)
	layer, err := remote.Layer(tag.Digest(manifest.Layers[0].Digest.String()))
	require.NoError(t, err)
	content, err := layer.Compressed()
	require.NoError(t, err)
	bytesOfLayer, err := io.ReadAll(content)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(first["metaparticle-1.2.3.tgz"], bytesOfLayer))
	for _, name := range []string{"rules.yaml", "prometheusrule.yaml", "dashboard.json"} {
		text, err := os.ReadFile(filepath.Join("monitoring", name))
		require.NoError(t, err)
		assert.Equal(t, string(text), string(first[name]))
	}
	t.Run("the files name their parts", func(t *testing.T) { namesItsParts(t, first) })
}

// pushesMadeFiles requires that -publish pushes the files of an earlier run, and none that is another than
// the release names.
func pushesMadeFiles(t *testing.T, files map[string][]byte) {
	out := t.TempDir()
	folder := filepath.Join(out, "v1.2.3")
	require.NoError(t, os.Mkdir(folder, 0o700))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), content, 0o600))
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	to := strings.TrimPrefix(server.URL, "http://") + "/later"
	publish := []string{"-version", "v1.2.3", "-registry", "r.example/m", "-publish", "-push-to", to, "-insecure", "-out", out}
	require.NoError(t, run(t.Context(), publish, io.Discard))
	for line := range strings.Lines(string(files[referencesFile])) {
		place, digest, _ := strings.Cut(strings.TrimSpace(line), "@")
		version := map[bool]string{true: "1.2.3", false: "v1.2.3"}[path.Base(place) == chartName]
		tag, err := name.NewTag(to+"/"+path.Base(place)+":"+version, name.Insecure)
		require.NoError(t, err)
		pushed, err := remote.Head(tag)
		require.NoError(t, err)
		assert.Equal(t, digest, pushed.Digest.String())
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "agent.tar"), files["webhook.tar"], 0o600))
	assert.ErrorContains(t, run(t.Context(), publish, io.Discard), "and references.txt names sha256:")
}

// namesItsParts requires that the files name the plugin, and the modules of the binaries.
func namesItsParts(t *testing.T, files map[string][]byte) {
	var krew struct {
		Spec struct {
			Version   string
			Platforms []platform
		}
	}
	require.NoError(t, yaml.Unmarshal(files["metaparticle.yaml"], &krew))
	assert.Equal(t, "v1.2.3", krew.Spec.Version)
	require.Len(t, krew.Spec.Platforms, 1)
	archive := "kubectl-metaparticle_linux_" + runtime.GOARCH + ".tar.gz"
	assert.Equal(t, "https://downloads.example/v1.2.3/"+archive, krew.Spec.Platforms[0].URI)
	assert.Contains(t, string(files[sums]), krew.Spec.Platforms[0].SHA256+"  "+archive+"\n")
	program := unpacked(t, files[archive])["kubectl-metaparticle"]
	assert.Contains(t, program, "v1.2.3")
	// 72 MB without symbols, nearly all of it client-go and its types; a new dependency needs a reason.
	assert.Less(t, len(program), 76_000_000, "the plugin grows: find out why by go list -deps ./cmd/kubectl-metaparticle")
	var bom struct {
		Components []struct{ Name, Purl string }
	}
	require.NoError(t, json.Unmarshal(files["agent_linux_"+runtime.GOARCH+".cdx.json"], &bom))
	var modules []string
	for _, c := range bom.Components {
		modules = append(modules, c.Name)
	}
	assert.Contains(t, modules, "std")
	assert.Contains(t, modules, "golang.org/x/sys")
	assert.NotContains(t, modules, "k8s.io/client-go", "the agent is small")
}

func TestReleaseToolRefusesInvalidOrMissingArguments(t *testing.T) {
	for said, args := range map[string][]string{
		`-version is "1.2": write a semantic version, as v1.2.3`: {"-version", "1.2", "-registry", "r"},
		`-registry is ""`:     {"-version", "v1.2.3"},
		"unexpected argument": {"now"},
	} {
		assert.ErrorContains(t, run(t.Context(), append(args, "-out", t.TempDir()), io.Discard), said)
	}
}

func TestReleaseToolNeverPushesUncommittedChanges(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, exec.CommandContext(t.Context(), "git", "init", "-q").Run())
	require.NoError(t, os.WriteFile("new.txt", nil, 0o600))
	err := run(t.Context(), []string{"-version", "v1.2.3", "-registry", "r", "-push"}, io.Discard)
	assert.ErrorContains(t, err, "changes that are in no commit")
	assert.ErrorContains(t, err, "new.txt")
	assert.NoDirExists(t, "out")
}

// unpacked returns the files of a tarball.
func unpacked(t *testing.T, packed []byte) map[string]string {
	t.Helper()
	content, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(content); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		text, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[header.Name] = string(text)
	}
}
