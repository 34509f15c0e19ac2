// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push pushes the images and the chart from the release's files. What is not the content that
// references.txt names, is not pushed.
func (r *release) push(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(r.directory, referencesFile))
	if err != nil {
		return err
	}
	unpacked, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unpacked)
	for line := range strings.Lines(string(text)) {
		place, digest, _ := strings.Cut(strings.TrimSpace(line), "@")
		of, version := path.Base(place), r.version
		var content interface {
			remote.Taggable
			Digest() (v1.Hash, error)
		}
		if of == chartName {
			version = r.number() // as Helm tags charts
			content, err = r.packedChart()
		} else {
			content, err = r.packedImage(ctx, of, filepath.Join(unpacked, of))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", of, err)
		}
		if is, err := content.Digest(); err != nil || is.String() != digest {
			return errors.Join(err, fmt.Errorf("%s is %s, and %s names %s", of, is, referencesFile, digest))
		}
		var options []name.Option
		if r.insecure {
			options = append(options, name.Insecure)
		}
		tag, err := name.NewTag(r.pushTo+"/"+of+":"+version, options...)
		if err != nil {
			return err
		}
		if err := remote.Push(tag, content, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("%s: %w", tag, err)
		}
	}
	return nil
}

// packedImage returns the index in an image's tarball, which it unpacks into the directory.
func (r *release) packedImage(ctx context.Context, of, directory string) (v1.ImageIndex, error) {
	if err := os.Mkdir(directory, 0o700); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "tar", "-xf", filepath.Join(r.directory, of+".tar"), "-C", directory).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("unpack: %w\n%s", err, out)
	}
	return onlyIndex(directory)
}

// packedChart returns the packed chart as an artefact of a registry.
func (r *release) packedChart() (v1.Image, error) {
	packed, err := os.ReadFile(filepath.Join(r.directory, r.chartFile()))
	if err != nil {
		return nil, err
	}
	content, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(content); ; {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("find Chart.yaml: %w", err)
		}
		if header.Name == chartName+"/Chart.yaml" {
			metadata, err := io.ReadAll(files)
			if err != nil {
				return nil, err
			}
			return helmArtefact(metadata, packed)
		}
	}
}

// onlyIndex returns the index of the image in a layout.
func onlyIndex(directory string) (v1.ImageIndex, error) {
	all, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		return nil, err
	}
	top, err := all.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		return nil, errors.Join(err, errors.New("not one index in the layout"))
	}
	return all.ImageIndex(top.Manifests[0].Digest)
}
