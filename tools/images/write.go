// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// write replaces the contents of the directory by an OCI layout of the index. The
// tarball beside the directory is replaced, too.
func write(directory, version string, index v1.ImageIndex) error {
	fresh := directory + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	path, err := layout.Write(fresh, empty.Index)
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	// Other tools find the image in the layout by this name.
	reference := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version})
	if err := path.AppendIndex(index, reference); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := pack(fresh, directory+".tar"); err != nil {
		return fmt.Errorf("write tarball: %w", err)
	}
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	return os.Rename(fresh, directory)
}

// pack writes a tarball of a layout. Equal layouts make equal tarballs.
func pack(directory, file string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	w := tar.NewWriter(f)
	// WalkDir visits files in lexical order, so equal layouts make equal tarballs.
	err = filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: filepath.ToSlash(relative), Size: int64(len(data)), Mode: 0o644,
			ModTime: created.Time, Format: tar.FormatUSTAR,
		}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// push pushes the index and all its images to a registry.
func push(ctx context.Context, reference string, insecure bool, index v1.ImageIndex) error {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	tag, err := name.NewTag(reference, options...)
	if err != nil {
		return err
	}
	return remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
