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
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// suite is the Debian release whose packages images are made of; its programs
// then stay the same when the machine's own release changes.
const suite = "bookworm"

// settings of mmdebstrap: the least that packages run on, without what official
// slim images leave out too. /usr/share/man/man1 must exist for some packages'
// scripts, so only its content is left out.
var settings = []string{
	"--variant=essential",
	"--dpkgopt=path-exclude=/usr/share/man/man[1-9]/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-include=/usr/share/doc/*/copyright",
}

// epoch is the newest time of a file in an image, so that images made of the
// same packages are the same. (2025-01-01)
const epoch = "1735689600"

// Debian makes an image of Debian packages with all they depend on, installed
// as on any Debian machine. The packages are kept in the user's cache, by
// their list: remove it to get newer ones.
func Debian(ctx context.Context, packages []string, config Config) (v1.Image, error) {
	file, err := rootFS(ctx, packages)
	if err != nil {
		return nil, err
	}
	layer, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	users, err := fileIn(layer, "etc/passwd")
	if err != nil {
		return nil, err
	}
	return image(layer, users, config, Compressed)
}

// rootFS makes a tarball of a root file system, once.
func rootFS(ctx context.Context, packages []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	packages = slices.Sorted(slices.Values(packages))
	sum := sha256.Sum256(fmt.Append(nil, suite, settings, epoch, packages, runtime.GOARCH))
	file := filepath.Join(cache, "metaparticle", fmt.Sprintf("debian-%s-%.6x.tar", packages[0], sum))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*.tar")
	if err != nil {
		return "", err
	}
	defer os.Remove(temp.Name())
	if err := temp.Close(); err != nil {
		return "", err
	}
	args := append(slices.Clone(settings), "--quiet", "--include="+strings.Join(packages, ","), suite, temp.Name())
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch)
	if out, err := cmd.CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("install the Debian package mmdebstrap: %w", err)
	} else if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return file, os.Rename(temp.Name(), file)
}

// fileIn reads one file of a tarball.
func fileIn(layer []byte, name string) ([]byte, error) {
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the root file system has no %s", name)
		}
		if err != nil {
			return nil, err
		}
		if path.Clean(header.Name) == name {
			return io.ReadAll(r)
		}
	}
}
