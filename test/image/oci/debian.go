// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// suite is the Debian release of the images' packages. The release is fixed, so that the
// images have the same packages even on a computer with another Debian release.
const suite = "bookworm"

// settings are the options of mmdebstrap. Like official slim images, the images lack
// manuals, translations and documentation. Scripts of some packages need the directory
// /usr/share/man/man1, so only its content is excluded.
var settings = []string{
	`--aptopt=APT::Install-Recommends "false"`,
	"--dpkgopt=path-exclude=/usr/share/man/man[1-9]/*",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-include=/usr/share/doc/*/copyright",
}

// epoch (2025-01-01) is the newest time of a file in an image. Without this bound, the
// same packages would make another image each time.
const epoch = "1735689600"

// Debian makes an image of Debian packages with all their dependencies, installed as on any Debian
// machine. The image has up to three layers: a base that all these images share, the packages,
// and the author's own files. If an image has no packages or no own files, the image lacks the
// layer for them. The user's cache keeps the base and the layer of each list of packages. To get
// newer packages, remove both from the cache.
func Debian(ctx context.Context, packages []string, config Config, compressed Compression) (v1.Image, error) {
	base, err := cached(ctx, "debian", key(), bootstrap)
	if err != nil {
		return nil, err
	}
	packages = slices.Sorted(slices.Values(packages))
	files := []string{base}
	if len(packages) > 0 {
		added, err := cached(ctx, "debian-"+packages[0], key(packages...), func(ctx context.Context, out string) error {
			return install(ctx, base, packages, out)
		})
		if err != nil {
			return nil, err
		}
		files = append(files, added)
	}
	var layers []v1.Layer
	var users []byte
	for _, file := range files {
		layer, err := layerOfFile(file, compressed)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
		if found, err := fileIn(file, "etc/passwd"); err != nil {
			return nil, err
		} else if found != nil {
			users = found
		}
	}
	if config.Files != nil {
		data, err := tarOf(config.Files)
		if err != nil {
			return nil, err
		}
		own, err := layersOf(compressed, data)
		if err != nil {
			return nil, err
		}
		layers = append(layers, own...)
	}
	return image(users, config, layers...)
}

// key returns a name for a layer. The name changes with everything that the layer is made
// from.
func key(packages ...string) string {
	sum := sha256.Sum256(fmt.Append(nil, suite, settings, epoch, packages, runtime.GOARCH))
	return fmt.Sprintf("%.6x", sum)
}

// making is the mutex by which the function "cached" makes only one file at a time. Without the
// mutex, several images at once would each make the same base.
var making sync.Mutex

// cached returns a file of the cache, and makes the file if it is missing.
func cached(ctx context.Context, name, key string, do func(context.Context, string) error) (string, error) {
	making.Lock()
	defer making.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "metaparticle", fmt.Sprintf("%s-%s.layer.tar", name, key))
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
	if err := do(ctx, temp.Name()); err != nil {
		return "", err
	}
	return file, os.Rename(temp.Name(), file)
}

// bootstrap makes a root file system of the packages that every Debian machine has.
func bootstrap(ctx context.Context, out string) error {
	return mmdebstrap(ctx, nil, "--variant=essential", suite, out)
}

// unpackHook and installHook are commands for mmdebstrap. The first unpacks an existing
// root file system, and the second adds packages to it. Neither command syncs to the
// disk, because after a crash of the machine the file system is built anew.
const (
	unpackHook  = `mmtarfilter "--path-exclude=/dev/*" <"$BASE" | tar -C "$1" -x`
	installHook = `APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes --quiet ` +
		`-oDPkg::Chroot-Directory="$1" -oDPkg::Options::=--force-unsafe-io $PACKAGES`
)

// install makes the layer that packages add to a root file system.
func install(ctx context.Context, base string, packages []string, out string) error {
	whole := out + ".whole.tar"
	defer os.Remove(whole)
	err := mmdebstrap(ctx, []string{"BASE=" + base, "PACKAGES=" + strings.Join(packages, " ")}, "--variant=custom",
		"--setup-hook="+unpackHook, "--customize-hook="+installHook, suite, whole)
	if err != nil {
		return err
	}
	before, err := os.Open(base)
	if err != nil {
		return err
	}
	defer before.Close()
	after, err := os.Open(whole)
	if err != nil {
		return err
	}
	defer after.Close()
	layer, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(difference(before, after, layer), layer.Close())
}

func mmdebstrap(ctx context.Context, env []string, args ...string) error {
	// The command runs under nice, because tests with deadlines may run at the same time.
	args = append(append([]string{"mmdebstrap", "--quiet"}, settings...), args...)
	cmd := exec.CommandContext(ctx, "nice", args...)
	cmd.Env = append(append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch), env...)
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return fmt.Errorf("install the Debian package mmdebstrap: %w", err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return nil
}

// errFound ends the search of fileIn.
var errFound = errors.New("found")

// fileIn returns the content of one file in a tarball, or nil if the tarball lacks the
// file.
func fileIn(tarball, name string) (found []byte, err error) {
	file, err := os.Open(tarball)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	err = entries(file, func(header *tar.Header, data []byte) error {
		if path.Clean(header.Name) != name {
			return nil
		}
		found = data
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}
