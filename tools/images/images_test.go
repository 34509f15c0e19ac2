// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

var hello = []product{{name: "hello", source: "./testdata/hello"}}

// build builds the test's product, and returns the directory and the printed
// table.
func build(t *testing.T, args ...string) (directory, table string) {
	t.Helper()
	directory = t.TempDir()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), append([]string{"-out", directory}, args...), hello, &out))
	return directory, out.String()
}

// open verifies every byte of a layout's only index, and returns this index.
func open(t *testing.T, directory string) v1.ImageIndex {
	t.Helper()
	top, err := layout.ImageIndexFromPath(directory)
	require.NoError(t, err)
	manifest, err := top.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	verify(t, index)
	return index
}

// verify reads every byte of an index and compares the digests.
func verify(t *testing.T, index v1.ImageIndex) {
	t.Helper()
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	for _, entry := range manifest.Manifests {
		image, err := index.Image(entry.Digest)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		layers, err := image.Layers()
		require.NoError(t, err)
		require.Len(t, config.RootFS.DiffIDs, len(layers))
		for i, layer := range layers {
			requireDigest(t, layer.Digest, layer.Compressed)
			requireDigest(t, func() (v1.Hash, error) { return config.RootFS.DiffIDs[i], nil }, layer.Uncompressed)
		}
	}
}

func requireDigest(t *testing.T, digest func() (v1.Hash, error), content func() (io.ReadCloser, error)) {
	t.Helper()
	want, err := digest()
	require.NoError(t, err)
	r, err := content()
	require.NoError(t, err)
	defer r.Close()
	got, _, err := v1.SHA256(r)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// program returns the only file of an image.
func program(t *testing.T, image v1.Image) (*tar.Header, []byte) {
	t.Helper()
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	content, err := layers[0].Uncompressed()
	require.NoError(t, err)
	defer content.Close()
	r := tar.NewReader(content)
	header, err := r.Next()
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	_, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
	return header, data
}

func TestImageOfEachPlatformHasAMatchingBinary(t *testing.T) {
	directory, table := build(t, "-version", "v1.2.3")
	index := open(t, filepath.Join(directory, "hello"))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	here, err := os.Getwd()
	require.NoError(t, err)
	machines := map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64}
	require.Len(t, manifest.Manifests, len(machines))
	for _, entry := range manifest.Manifests {
		image, err := index.Image(entry.Digest)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		assert.Equal(t, entry.Platform.String(), config.Platform().String())
		assert.Equal(t, []string{"/hello"}, config.Config.Entrypoint)
		assert.Empty(t, config.Config.Cmd)
		assert.Equal(t, "65532:65532", config.Config.User)
		assert.Equal(t, "v1.2.3", config.Config.Labels["org.opencontainers.image.version"])

		header, data := program(t, image)
		assert.Equal(t, "hello", header.Name)
		assert.EqualValues(t, 0o555, header.Mode)
		file, err := elf.NewFile(bytes.NewReader(data))
		require.NoError(t, err)
		assert.Equal(t, machines[entry.Platform.String()], file.Machine)
		assert.Nil(t, file.Section(".interp"), "the program must be static")
		assert.Nil(t, file.Section(".symtab"), "the program must be stripped")
		assert.NotContains(t, string(data), here, "the program contains a path of this machine")
		assert.Contains(t, table, entry.Digest.String())
	}
	digest, err := index.Digest()
	require.NoError(t, err)
	assert.Contains(t, table, digest.String())
	assert.Contains(t, table, " MB")
}

// The webhook writes the agent's path into a hook, so the image must have the agent there.
func TestImageHasAgentWhereInjectedHooksExpectIt(t *testing.T) {
	agent := slices.IndexFunc(products, func(p product) bool { return p.source == "./cmd/agent" })
	require.GreaterOrEqual(t, agent, 0)
	assert.Equal(t, api.AgentProgram, "/"+products[agent].name)
	assert.Contains(t, products[agent].beside, binary{"shim", "./cmd/shim"}, "the agent copies /shim for gated containers")
}

func TestBuiltBinaryPrintsTheRequestedVersion(t *testing.T) {
	directory, _ := build(t, "-version", "v1.2.3", "-platforms", "linux/"+runtime.GOARCH)
	index := open(t, filepath.Join(directory, "hello"))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	image, err := index.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	_, data := program(t, image)
	file := filepath.Join(t.TempDir(), "hello")
	require.NoError(t, os.WriteFile(file, data, 0o700))
	output, err := exec.CommandContext(t.Context(), file).Output()
	require.NoError(t, err)
	assert.Equal(t, "hello v1.2.3\n", string(output))
}

// Neither the output directory nor the place of the sources nor the time may
// change the digest.
func TestEqualSourcesMakeEqualImageDigests(t *testing.T) {
	first, _ := build(t)

	sources := t.TempDir()
	source, err := os.ReadFile("testdata/hello/main.go")
	require.NoError(t, err)
	// The compiled binary contains the module's name, but not the folder of the sources. So
	// this copy of the sources has the same module name, but another folder.
	place := filepath.Join(sources, "tools/images/testdata/hello")
	require.NoError(t, os.MkdirAll(place, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(place, "main.go"), source, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(sources, "go.mod"),
		[]byte("module github.com/metaparticle-io/metaparticle\n\ngo 1.26.0\n"), 0o600))
	t.Chdir(filepath.Join(sources, "tools/images"))
	t.Setenv("GOFLAGS", "-ldflags=-X=main.version=other")
	t.Setenv("GOAMD64", "v3")
	second, _ := build(t)

	for _, file := range []string{"hello.tar", "hello/index.json"} {
		one, err := os.ReadFile(filepath.Join(first, file))
		require.NoError(t, err)
		two, err := os.ReadFile(filepath.Join(second, file))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(one, two), file)
	}
}

// "go env -w" writes a file of settings. A go.work file in a folder above names other modules. The
// build must ignore both files.
func TestGoSettingsOfTheMachineNeverChangeDigests(t *testing.T) {
	first, _ := build(t, "-platforms", "linux/amd64")
	home := t.TempDir()
	settings, work := filepath.Join(home, "env"), filepath.Join(home, "go.work")
	require.NoError(t, os.WriteFile(settings, []byte("GOAMD64=v3\nGOFLAGS=-gcflags=-N\n"), 0o600))
	require.NoError(t, os.WriteFile(work, []byte("go 1.26.0\n"), 0o600))
	for name, value := range map[string]string{"GOENV": settings, "GOWORK": work} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			second, _ := build(t, "-platforms", "linux/amd64")
			one, err := os.ReadFile(filepath.Join(first, "hello/index.json"))
			require.NoError(t, err)
			two, err := os.ReadFile(filepath.Join(second, "hello/index.json"))
			require.NoError(t, err)
			assert.Equal(t, string(one), string(two))
		})
	}
}

func TestImageBuildDeletesFilesOfTheEarlierBuild(t *testing.T) {
	directory, _ := build(t, "-platforms", "linux/amd64", "-version", "one")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-out", directory, "-platforms", "linux/amd64", "-version", "two"}, hello, &out))
	open(t, filepath.Join(directory, "hello"))
	blobs, err := os.ReadDir(filepath.Join(directory, "hello/blobs/sha256"))
	require.NoError(t, err)
	assert.Len(t, blobs, 4, "an index, a manifest, a configuration and a layer")
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "the layout and its tarball")
}

func TestTarballContainsTheImageLayout(t *testing.T) {
	directory, _ := build(t, "-platforms", "linux/amd64")
	f, err := os.Open(filepath.Join(directory, "hello.tar"))
	require.NoError(t, err)
	defer f.Close()
	unpacked := t.TempDir()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		file := filepath.Join(unpacked, header.Name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, data, 0o600))
	}
	want, err := open(t, filepath.Join(directory, "hello")).Digest()
	require.NoError(t, err)
	got, err := open(t, unpacked).Digest()
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// The program "docker load" and its likes find each image by a name, which differs for other content.
func TestArchiveHasEachImageUnderANameOfItsContent(t *testing.T) {
	names := map[string]string{}
	for _, version := range []string{"one", "two"} {
		file := filepath.Join(t.TempDir(), "new", "images.tar")
		directory, table := build(t, "-platforms", "linux/amd64", "-version", version, "-archive", file)
		match := regexp.MustCompile(`hello +loaded +(localhost/metaparticle/hello:` + version + `-([0-9a-f]{12})) `).FindStringSubmatch(table)
		require.NotNil(t, match, table)
		names[version] = match[2]
		tag, err := name.NewTag(match[1])
		require.NoError(t, err)
		image, err := tarball.ImageFromPath(file, &tag)
		require.NoError(t, err)
		loaded, err := image.ConfigName()
		require.NoError(t, err)
		manifest, err := open(t, filepath.Join(directory, "hello")).IndexManifest()
		require.NoError(t, err)
		assert.Equal(t, match[2], manifest.Manifests[0].Digest.Hex[:12])
		built, err := open(t, filepath.Join(directory, "hello")).Image(manifest.Manifests[0].Digest)
		require.NoError(t, err)
		config, err := built.ConfigName()
		require.NoError(t, err)
		assert.Equal(t, config, loaded)
	}
	assert.NotEqual(t, names["one"], names["two"])
}

func TestPushedImageIndexEqualsBuiltIndex(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	directory, _ := build(t, "-push", host+"/some/prefix/", "-insecure", "-version", "v2")
	ref, err := name.NewTag(host+"/some/prefix/hello:v2", name.Insecure)
	require.NoError(t, err)
	pushed, err := remote.Index(ref, remote.WithContext(t.Context()))
	require.NoError(t, err)
	verify(t, pushed)
	got, err := pushed.Digest()
	require.NoError(t, err)
	want, err := open(t, filepath.Join(directory, "hello")).Digest()
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// The first build of the real images takes minutes.
func TestRegistryThatTakesNoPushIsRefusedBeforeTheBuild(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody answers
	require.NoError(t, err)
	defer silent.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, `{"errors":[{"code":"DENIED","message":"not yours"}]}`, http.StatusForbidden)
		}
	}))
	defer denied.Close()
	for name, c := range map[string]struct{ registry, want string }{
		"no answer": {silent.Addr().String(), "the deadline of this test"},
		"no server": {strings.TrimPrefix(closed.URL, "http://"), "connection refused"},
		"no right":  {strings.TrimPrefix(denied.URL, "http://"), "DENIED: not yours"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, errors.New("the deadline of this test"))
			defer cancel()
			// Go cannot compile for this platform, so a build would fail with another error.
			err := run(ctx, []string{"-out", t.TempDir(), "-platforms", "linux/abacus", "-push", c.registry + "/prefix", "-insecure"}, hello, io.Discard)
			require.ErrorContains(t, err, "nothing was built, because "+c.registry+"/prefix/hello:dev takes no push: ")
			assert.ErrorContains(t, err, c.want)
		})
	}
}

func TestImagesCommandRefusesInvalidArguments(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"empty platform":      {[]string{"-platforms", ""}, "is not of the form"},
		"incomplete platform": {[]string{"-platforms", "linux"}, "is not of the form"},
		"unknown platform":    {[]string{"-platforms", "linux/abacus"}, "unsupported GOOS/GOARCH"},
		"bad reference":       {[]string{"-platforms", "linux/amd64", "-push", "UPPER/case"}, "push UPPER/case/hello:dev"},
		"unknown flag":        {[]string{"-colour"}, "colour"},
		"unknown image":       {[]string{"-only", "hullo"}, `no image is called "hullo"`},
		"surplus argument":    {[]string{"now"}, "now"},
		"two to load":         {[]string{"-archive", "a.tar"}, "-archive takes the images of one platform, and -platforms names 2"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"-out", t.TempDir()}, c.args...), hello, io.Discard)
			assert.ErrorContains(t, err, c.want)
		})
	}
}
