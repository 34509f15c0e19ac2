// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Open opens a tarball that has docker save's format, is an OCI layout, or is both. If an OCI
// layout has one entry, Open returns that entry. Otherwise Open returns the layout's index.
func Open(file string) (remote.Taggable, error) {
	archive, err := scan(file)
	if err != nil {
		return nil, err
	}
	if _, ok := archive.at["index.json"]; ok {
		return archive.open()
	}
	if _, ok := archive.at["manifest.json"]; ok {
		return tarball.ImageFromPath(file, nil)
	}
	return nil, fmt.Errorf("%s: neither docker save's format nor an OCI layout", file)
}

// archive reads files within a tarball in place.
type archive struct {
	file string
	at   map[string]section
}

type section struct{ offset, size int64 }

func scan(file string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &archive{file: file, at: map[string]section{}}
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		// At this point the reader has read whole headers, and nothing of the entry's
		// content. So the offset is the beginning of the content.
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		a.at[path.Clean(header.Name)] = section{offset, header.Size}
	}
}

func (a *archive) read(name string) (io.ReadCloser, error) {
	at, ok := a.at[name]
	if !ok {
		return nil, fmt.Errorf("%s has no %s", a.file, name)
	}
	f, err := os.Open(a.file)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, at.offset, at.size), f}, nil
}

func (a *archive) readAll(name string) ([]byte, error) {
	r, err := a.read(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func blob(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// open returns the layout's only entry, or the layout's index if the number of entries is not one.
func (a *archive) open() (remote.Taggable, error) {
	raw, err := a.readAll("index.json")
	if err != nil {
		return nil, err
	}
	top := &index{a, raw, types.OCIImageIndex}
	manifest, err := top.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return top, nil
	}
	only := manifest.Manifests[0]
	if only.MediaType.IsIndex() {
		return top.ImageIndex(only.Digest)
	}
	return top.Image(only.Digest)
}

// index is an image index in an archive.
type index struct {
	archive *archive
	raw     []byte
	media   types.MediaType
}

func (i *index) MediaType() (types.MediaType, error) { return i.media, nil }
func (i *index) Digest() (v1.Hash, error)            { return partial.Digest(i) }
func (i *index) Size() (int64, error)                { return partial.Size(i) }
func (i *index) RawManifest() ([]byte, error)        { return i.raw, nil }

func (i *index) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(strings.NewReader(string(i.raw)))
}

func (i *index) Image(h v1.Hash) (v1.Image, error) {
	raw, err := i.archive.readAll(blob(h))
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&archived{i.archive, raw})
}

func (i *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	raw, err := i.archive.readAll(blob(h))
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseIndexManifest(strings.NewReader(string(raw)))
	if err != nil {
		return nil, err
	}
	return &index{i.archive, raw, manifest.MediaType}, nil
}

// archived is an image in an archive. The type has only the methods that
// go-containerregistry cannot derive from the others.
type archived struct {
	archive *archive
	raw     []byte
}

func (m *archived) RawManifest() ([]byte, error) { return m.raw, nil }

func (m *archived) MediaType() (types.MediaType, error) {
	var manifest v1.Manifest
	if err := json.Unmarshal(m.raw, &manifest); err != nil {
		return "", err
	}
	if manifest.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return manifest.MediaType, nil
}

func (m *archived) RawConfigFile() ([]byte, error) {
	manifest, err := partial.Manifest(m)
	if err != nil {
		return nil, err
	}
	return m.archive.readAll(blob(manifest.Config.Digest))
}

func (m *archived) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	manifest, err := partial.Manifest(m)
	if err != nil {
		return nil, err
	}
	for _, layer := range append(manifest.Layers, manifest.Config) {
		if layer.Digest == h {
			return &archivedLayer{m.archive, layer}, nil
		}
	}
	return nil, fmt.Errorf("%s has no layer %s", m.archive.file, h)
}

type archivedLayer struct {
	archive    *archive
	descriptor v1.Descriptor
}

func (l *archivedLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *archivedLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *archivedLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l *archivedLayer) Compressed() (io.ReadCloser, error) {
	return l.archive.read(blob(l.descriptor.Digest))
}
