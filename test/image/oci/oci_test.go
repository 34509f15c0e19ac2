// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func program(t *testing.T) string {
	file := filepath.Join(t.TempDir(), "app")
	require.NoError(t, os.WriteFile(file, []byte("not really a program"), 0o600))
	return file
}

func TestStaticImageIsReproducible(t *testing.T) {
	file := program(t)
	for _, compressed := range []Compression{Compressed, Uncompressed} {
		config := Config{User: "nobody", Cmd: []string{"serve"}, Ports: []string{"80/tcp"}}
		img, err := Static(file, "app", config, compressed)
		require.NoError(t, err)
		again, err := Static(file, "app", config, compressed)
		require.NoError(t, err)
		assert.Equal(t, digest(t, img), digest(t, again))

		assert.Equal(t, "not really a program", filesOf(t, img)["app"])

		got, err := img.ConfigFile()
		require.NoError(t, err)
		assert.Equal(t, []string{"/app"}, got.Config.Entrypoint)
		assert.Equal(t, []string{"serve"}, got.Config.Cmd)
		assert.Equal(t, "65534:65534", got.Config.User)
		assert.Contains(t, got.Config.ExposedPorts, "80/tcp")
		assert.Contains(t, got.Config.Env[0], "PATH=")
	}
}

func TestImageStoresUserNamesAsNumbers(t *testing.T) {
	passwd := []byte("root:x:0:0::/:/\nredis:x:100:101::/var/lib/redis:/bin/false\n")
	for user, want := range map[string]string{"": "", "redis": "100:101", "1000": "1000", "1000:0": "1000:0"} {
		got, err := numeric(user, passwd)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := numeric("nginx", passwd)
	assert.EqualError(t, err, `the image has no user "nginx"`)
}

func TestWrittenImageCanBeOpenedAndPushed(t *testing.T) {
	img, err := Static(program(t), "app", Config{}, Compressed)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "app.tar")
	require.NoError(t, Write(file, "app:1", img))
	opened, err := Open(file)
	require.NoError(t, err)
	pushed(t, opened)
	want, err := img.ConfigName()
	require.NoError(t, err)
	got, err := opened.(v1.Image).ConfigName()
	require.NoError(t, err)
	assert.Equal(t, want, got, "this format keeps what is run, not the manifest")
}

func TestLayoutOfSingleImageOpensAsThatImage(t *testing.T) {
	img, err := Static(program(t), "app", Config{}, Compressed)
	require.NoError(t, err)
	opened, err := Open(archiveOf(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})))
	require.NoError(t, err)
	assert.Equal(t, digest(t, img).Hex, pushed(t, opened))
}

func TestLayoutOfSeveralImagesOpensAsImageIndex(t *testing.T) {
	one, err := Static(program(t), "one", Config{}, Compressed)
	require.NoError(t, err)
	other, err := Static(program(t), "other", Config{}, Compressed)
	require.NoError(t, err)
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: one}, mutate.IndexAddendum{Add: other})

	opened, err := Open(archiveOf(t, index))
	require.NoError(t, err)
	assert.Equal(t, digest(t, index).Hex, pushed(t, opened), "all entries of a layout with several")

	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	opened, err = Open(archiveOf(t, nested))
	require.NoError(t, err)
	assert.Equal(t, digest(t, index).Hex, pushed(t, opened), "the only entry, itself an index")
}

func TestTarballWithoutAnImageIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "other.tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "readme", Mode: 0o644}))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	_, err = Open(file)
	assert.ErrorContains(t, err, "neither docker save's format nor an OCI layout")
}

type digested interface{ Digest() (v1.Hash, error) }

func digest(t *testing.T, d digested) v1.Hash {
	hash, err := d.Digest()
	require.NoError(t, err)
	return hash
}

// pushed pushes an image to a registry, checks the stored image, and returns its
// digest.
func pushed(t *testing.T, image remote.Taggable) string {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := strings.TrimPrefix(server.URL, "http://") + "/demo/app:1"
	require.NoError(t, Push(t.Context(), reference, image))
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	got, err := remote.Get(ref)
	require.NoError(t, err)
	if !got.MediaType.IsIndex() {
		img, err := got.Image()
		require.NoError(t, err)
		assert.Contains(t, filesOf(t, img), "app")
	}
	return got.Digest.Hex
}

// filesOf returns the contents of an image's files, by name.
func filesOf(t *testing.T, img v1.Image) map[string]string {
	files := map[string]string{}
	content := mutate.Extract(img)
	defer content.Close()
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		files[header.Name] = string(data)
	}
}

// archiveOf writes an index as an OCI layout in a tarball.
func archiveOf(t *testing.T, index v1.ImageIndex) string {
	dir := t.TempDir()
	_, err := layout.Write(dir, index)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	defer f.Close()
	w := tar.NewWriter(f)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	return file
}
