// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package oci makes container images without a container engine: of one static executable file,
// or of a list of Debian packages. The package also writes, opens and pushes images.
package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Config is the configuration of an image's process.
type Config struct {
	Entrypoint []string // if nil, the function Static sets the path of its executable file
	Cmd        []string
	Env        []string // NAME=value; PATH is added if missing
	User       string   // a name or numbers; in the image, UID:GID replaces a name
	WorkingDir string
	Ports      []string // such as 6379/tcp
	StopSignal string   // such as SIGQUIT
	// Files are the image author's own files, which replace the packages' files and belong
	// to root. A file that begins with #! is executable.
	Files fs.FS
}

// Compression reports whether an image's layers are compressed.
type Compression bool

// An image that never leaves the machine needs no compression.
const (
	Compressed   Compression = true
	Uncompressed Compression = false
)

// Static makes an image of one static executable file, which the image has at /name. The image also
// has the directory /tmp, and the users root and nobody. Equal input makes an equal image.
func Static(program, name string, config Config, compressed Compression) (v1.Image, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	users := []byte("root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n")
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, entry := range []struct {
		header tar.Header
		data   []byte
	}{
		{tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644, Size: int64(len(users))}, users},
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}, data},
	} {
		if err := w.WriteHeader(&entry.header); err != nil {
			return nil, err
		}
		if _, err := w.Write(entry.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if config.Entrypoint == nil {
		config.Entrypoint = []string{"/" + name}
	}
	layers, err := layersOf(compressed, layer.Bytes())
	if err != nil {
		return nil, err
	}
	return image(users, config, layers...)
}

// image makes an image of layers.
func image(users []byte, config Config, layers ...v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	user, err := numeric(config.User, users)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = v1.Config{
		Entrypoint: config.Entrypoint, Cmd: config.Cmd, Env: config.Env, User: user, WorkingDir: config.WorkingDir,
		StopSignal: config.StopSignal,
	}
	if !slices.ContainsFunc(config.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		file.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, config.Env...)
	}
	for _, port := range config.Ports {
		if file.Config.ExposedPorts == nil {
			file.Config.ExposedPorts = map[string]struct{}{}
		}
		file.Config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(img, file)
}

// numeric returns the UID and GID of a named user, and leaves an empty user and a UID unchanged.
// Kubernetes cannot tell whether a name means root, and refuses names under runAsNonRoot.
func numeric(user string, passwd []byte) (string, error) {
	first, _, _ := strings.Cut(user, ":")
	if _, err := strconv.Atoi(first); err == nil || user == "" {
		return user, nil
	}
	for line := range strings.Lines(string(passwd)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) > 3 && fields[0] == user {
			return fields[2] + ":" + fields[3], nil
		}
	}
	return "", fmt.Errorf("the image has no user %q", user)
}

// Push pushes an image or index to a registry, by plain HTTP if the registry is local.
// Push uses the credentials in docker's configuration, if there are any.
func Push(ctx context.Context, reference string, image remote.Taggable) error {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	switch image := image.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, image, options...)
	case v1.Image:
		err = remote.Write(ref, image, options...)
	default:
		err = fmt.Errorf("neither image nor index: %T", image)
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	return nil
}

// Write writes an image in the format of docker save.
func Write(file, reference string, image v1.Image) error {
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		return fmt.Errorf("write %s: %w", path.Base(file), err)
	}
	return nil
}
