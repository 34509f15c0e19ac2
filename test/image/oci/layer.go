// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layersOf makes layers from tarballs that are in memory.
func layersOf(compressed Compression, tarballs ...[]byte) ([]v1.Layer, error) {
	var layers []v1.Layer
	for _, data := range tarballs {
		if !compressed {
			layers = append(layers, static.NewLayer(data, types.OCIUncompressedLayer))
			continue
		}
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, fmt.Errorf("make layer: %w", err)
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// layerOfFile makes a layer from a tarball that is a file.
func layerOfFile(name string, compressed Compression) (v1.Layer, error) {
	if compressed {
		return tarball.LayerFromFile(name, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hash, size, err := v1.SHA256(file)
	if err != nil {
		return nil, err
	}
	return fileLayer{name, hash, size}, nil
}

// fileLayer is an uncompressed layer that is never in memory as a whole.
type fileLayer struct {
	name string
	hash v1.Hash
	size int64
}

func (l fileLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l fileLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l fileLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
func (l fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.name) }
func (l fileLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.name) }

// tarOf makes a tarball of files without entries for their directories. If a lower layer of the
// image has such a directory, the directory stays as it is. Otherwise the directory is created.
func tarOf(files fs.FS) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if bytes.HasPrefix(data, []byte("#!")) {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	return out.Bytes(), w.Close()
}

// difference writes the layer with the changes from one root file system to a later one. A file
// that is only in the earlier file system is an error.
func difference(before, after io.Reader, layer io.Writer) error {
	had := map[string][sha256.Size]byte{}
	if err := entries(before, func(header *tar.Header, data []byte) error {
		had[path.Clean(header.Name)] = fingerprint(header, data)
		return nil
	}); err != nil {
		return err
	}
	has := map[string]bool{}
	w := tar.NewWriter(layer)
	if err := entries(after, func(header *tar.Header, data []byte) error {
		name := path.Clean(header.Name)
		has[name] = true
		if old, ok := had[name]; ok && old == fingerprint(header, data) {
			return nil
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}); err != nil {
		return err
	}
	for name := range had {
		if !has[name] {
			return fmt.Errorf("installing packages took %s away", name)
		}
	}
	return w.Close()
}

// entries calls a function for each entry of a tarball.
func entries(r io.Reader, take func(*tar.Header, []byte) error) error {
	for t := tar.NewReader(r); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if err := take(header, data); err != nil {
			return err
		}
	}
}

func fingerprint(header *tar.Header, data []byte) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%c %o %d %d %s %d %d %d\n%s", header.Typeflag, header.Mode, header.Uid,
		header.Gid, header.Linkname, header.ModTime.Unix(), header.Devmajor, header.Devminor, data))
}

// TestApp is the application of the tests and benchmarks, for [Compile].
const TestApp = "github.com/metaparticle-io/metaparticle/test/app"

// Compile builds a command of this module as one static executable file, for [Static].
func Compile(ctx context.Context, command, out string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", command, err, said)
	}
	return nil
}
