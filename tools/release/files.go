// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"
)

// sums is the name of the file with the checksums.
const sums = "checksums.txt"

// epoch is the time of all files in archives, so that equal contents make equal archives.
var epoch = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// file is a file in an archive.
type file struct {
	name    string
	content []byte
	mode    os.FileMode
}

// tarball packs files as tar and gzip.
func tarball(files []file) ([]byte, error) {
	var packed bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: int64(f.mode), ModTime: epoch, Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// zipped packs files as zip.
func zipped(files []file) ([]byte, error) {
	var packed bytes.Buffer
	archive := zip.NewWriter(&packed)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: epoch}
		header.SetMode(f.mode)
		w, err := archive.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// bill writes the list of a binary's modules in the format of CycloneDX. The binary's own build
// information names these modules.
func (r *release) bill(program, platform string, content []byte) error {
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return err
	}
	component := func(kind cdx.ComponentType, path, version string) cdx.Component {
		url := fmt.Sprintf("pkg:golang/%s@%s", path, version)
		return cdx.Component{Type: kind, BOMRef: url, Name: path, Version: version, PackageURL: url}
	}
	main := component(cdx.ComponentTypeApplication, info.Path, r.version)
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &main}
	all := []cdx.Component{component(cdx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, component(cdx.ComponentTypeLibrary, m.Path, m.Version))
	}
	bom.Components = &all
	var text bytes.Buffer
	if err := cdx.NewBOMEncoder(&text, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return err
	}
	return r.write(program+"_"+strings.ReplaceAll(platform, "/", "_")+".cdx.json", text.Bytes())
}

// monitoring copies the alerts and the dashboard.
func (r *release) monitoring(context.Context) error {
	for _, name := range []string{"rules.yaml", "prometheusrule.yaml", "dashboard.json"} {
		text, err := os.ReadFile(filepath.Join("monitoring", name))
		if err != nil {
			return err
		}
		if err := r.write(name, text); err != nil {
			return err
		}
	}
	return nil
}

const referencesFile = "references.txt"

// references writes the images and the chart by their digests, one a line. They are what a person
// mirrors, verifies or signs.
func (r *release) references(context.Context) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.digests)) {
		fmt.Fprintln(&text, r.image(name))
	}
	return r.write(referencesFile, []byte(text.String()))
}

// checksums writes the SHA-256 of each file, in the format that sha256sum checks.
func (r *release) checksums(context.Context) error {
	entries, err := os.ReadDir(r.directory)
	if err != nil {
		return err
	}
	var lines []string
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(r.directory, entry.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(content), entry.Name()))
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
	return r.write(sums, []byte(strings.Join(lines, "")))
}

// These are the media types of a chart in a registry, as Helm writes them.
const (
	helmConfig = types.MediaType("application/vnd.cncf.helm.config.v1+json")
	helmChart  = types.MediaType("application/vnd.cncf.helm.chart.content.v1.tar+gzip")
)

// artefact is content of a registry, but not a container image. An artefact consists of a manifest,
// a configuration and one layer.
type artefact struct {
	config []byte
	layer  v1.Layer
	about  map[string]string
}

// helmArtefact returns the chart as Helm pushes it (https://helm.sh/docs/topics/registries/): the configuration has all fields of Chart.yaml,
// and the manifest has the most important ones. Helm also writes the time, which would make equal
// charts differ.
func helmArtefact(metadata, packed []byte) (v1.Image, error) {
	config, err := yaml.YAMLToJSON(metadata)
	if err != nil {
		return nil, err
	}
	var chart struct {
		Name, Version, Description, Home string
		Sources                          []string
		Maintainers                      []struct{ Name string }
	}
	if err := json.Unmarshal(config, &chart); err != nil {
		return nil, err
	}
	if len(chart.Sources) == 0 || len(chart.Maintainers) == 0 {
		return nil, errors.New("no sources or maintainers in Chart.yaml")
	}
	about := map[string]string{
		"org.opencontainers.image.title": chart.Name, "org.opencontainers.image.version": chart.Version,
		"org.opencontainers.image.description": chart.Description, "org.opencontainers.image.url": chart.Home,
		"org.opencontainers.image.source": chart.Sources[0], "org.opencontainers.image.authors": chart.Maintainers[0].Name,
	}
	return partial.CompressedToImage(artefact{config, static.NewLayer(packed, helmChart), about})
}

// MediaType implements partial.CompressedImageCore.
func (a artefact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawConfigFile implements partial.CompressedImageCore.
func (a artefact) RawConfigFile() ([]byte, error) { return a.config, nil }

// RawManifest implements partial.CompressedImageCore.
func (a artefact) RawManifest() ([]byte, error) {
	layer, err := partial.Descriptor(a.layer)
	if err != nil {
		return nil, err
	}
	config, err := partial.Descriptor(static.NewLayer(a.config, helmConfig))
	if err != nil {
		return nil, err
	}
	return json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: *config, Layers: []v1.Descriptor{*layer}, Annotations: a.about})
}

// LayerByDigest implements partial.CompressedImageCore.
func (a artefact) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if own, err := a.layer.Digest(); err != nil || own == digest {
		return a.layer, err
	}
	return static.NewLayer(a.config, helmConfig), nil
}
