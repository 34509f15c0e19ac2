// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func tarred(t *testing.T, files ...string) *bytes.Buffer {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		name, data := files[i], files[i+1]
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}
		if data == "" {
			header.Typeflag, header.Linkname = tar.TypeSymlink, "elsewhere"
		}
		require.NoError(t, w.WriteHeader(header))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &out
}

func TestLayerContainsOnlyNewAndChangedFiles(t *testing.T) {
	base := func() *bytes.Buffer { return tarred(t, "./etc/passwd", "root", "./bin/sh", "sh", "./link", "") }
	var layer bytes.Buffer
	after := tarred(t, "./etc/passwd", "root, redis", "./bin/sh", "sh", "./link", "", "./bin/redis", "redis")
	require.NoError(t, difference(base(), after, &layer))
	names := map[string]string{}
	require.NoError(t, entries(&layer, func(h *tar.Header, data []byte) error {
		names[h.Name] = string(data)
		return nil
	}))
	assert.Equal(t, map[string]string{"./etc/passwd": "root, redis", "./bin/redis": "redis"}, names)

	err := difference(base(), tarred(t, "./etc/passwd", "root"), io.Discard)
	assert.ErrorContains(t, err, "took ", "a layer that hides files is not made silently without hiding them")
}

func TestScriptsInAnImageAreExecutable(t *testing.T) {
	data, err := tarOf(fstest.MapFS{
		"usr/bin/start": {Data: []byte("#!/bin/sh\n")},
		"etc/app.conf":  {Data: []byte("a = b\n")},
	})
	require.NoError(t, err)
	modes := map[string]int64{}
	require.NoError(t, entries(bytes.NewReader(data), func(h *tar.Header, _ []byte) error {
		modes[h.Name] = h.Mode
		return nil
	}))
	assert.Equal(t, map[string]int64{"usr/bin/start": 0o755, "etc/app.conf": 0o644}, modes)
}

func TestLayerReadFromFileEqualsLayerFromMemory(t *testing.T) {
	data := tarred(t, "./app", "not really a program").Bytes()
	file := filepath.Join(t.TempDir(), "layer.tar")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	fromMemory, err := layersOf(Uncompressed, data)
	require.NoError(t, err)
	fromFile, err := layerOfFile(file, Uncompressed)
	require.NoError(t, err)
	assert.Equal(t, digest(t, fromMemory[0]), digest(t, fromFile))
	img, err := image(nil, Config{StopSignal: "SIGQUIT"}, fromFile)
	require.NoError(t, err)
	pushed(t, img)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	assert.Equal(t, "SIGQUIT", config.Config.StopSignal)
}
