// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

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
}

// helmArtefact returns the chart as Helm pushes it.
func helmArtefact(version string, packed []byte) (v1.Image, error) {
	config, err := json.Marshal(map[string]string{"name": "metaparticle", "version": version, "apiVersion": "v2"})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(artefact{config, static.NewLayer(packed, helmChart)})
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
	return json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: *config, Layers: []v1.Descriptor{*layer}})
}

// LayerByDigest implements partial.CompressedImageCore.
func (a artefact) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	if own, err := a.layer.Digest(); err != nil || own == digest {
		return a.layer, err
	}
	return static.NewLayer(a.config, helmConfig), nil
}
