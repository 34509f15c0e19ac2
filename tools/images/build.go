// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
)

// product is a binary that is shipped as an image.
type product struct {
	name   string // the name of the image, and of the binary in the image
	source string // the package of the main function
	// settings are the settings by which the binary is compiled.
	settings gobuild.Settings
	// beside are further binaries in the same image. They are compiled with the same settings.
	beside []binary
}

// binary is a binary in the image of a product.
type binary struct{ name, source string }

// binaries returns all binaries of the image. The image starts the first of them.
func (p product) binaries() []binary { return append([]binary{{p.name, p.source}}, p.beside...) }

// user is a number, because Kubernetes cannot check whether a named user is root.
// Minimal images commonly use this number.
const user = "65532:65532"

// created is constant, so that equal builds have equal digests.
var created = v1.Time{Time: time.Unix(0, 0).UTC()}

// index builds the product for each platform.
func (p product) index(ctx context.Context, version string, platforms []v1.Platform) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		// The first compilation of the webhook takes minutes, so a line announces each
		// compilation.
		fmt.Fprintf(os.Stderr, "compiling %s for %s\n", p.name, platform)
		var layers []mutate.Addendum
		for _, b := range p.binaries() {
			layer, err := p.layer(ctx, b, version, platform)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", platform, err)
			}
			layers = append(layers, layer)
		}
		image, err := p.image(layers, version, platform)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &platform},
		})
	}
	return index, nil
}

// compile returns the compiled binary. The binary contains nothing of the
// building machine: no paths, no time, no state of a checkout, no C library.
func (p product) compile(ctx context.Context, b binary, version string, platform v1.Platform) ([]byte, error) {
	directory, err := os.MkdirTemp("", "images-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	file := filepath.Join(directory, b.name)
	build := exec.CommandContext(ctx, "go", p.settings.Arguments(b.source, file, version)...)
	build.Env, err = gobuild.Environment(ctx, "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	if err != nil {
		return nil, err
	}
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w\n%s", b.source, err, output)
	}
	return os.ReadFile(file)
}

// layer compiles the binary, and returns the layer that contains it.
func (p product) layer(ctx context.Context, b binary, version string, platform v1.Platform) (layer mutate.Addendum, err error) {
	program, err := p.compile(ctx, b, version, platform)
	if err != nil {
		return layer, err
	}
	content, err := archive(b.name, program)
	if err != nil {
		return layer, fmt.Errorf("make layer: %w", err)
	}
	layer.History = v1.History{Created: created, CreatedBy: "tools/images", Comment: "go build " + b.source}
	layer.Layer, err = tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression),
		tarball.WithCompressedCaching,
	)
	if err != nil {
		return layer, fmt.Errorf("make layer: %w", err)
	}
	return layer, nil
}

// image returns the image of the layers.
func (p product) image(layers []mutate.Addendum, version string, platform v1.Platform) (v1.Image, error) {
	empty := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err := mutate.ConfigFile(empty, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, Created: created,
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/" + p.name}, User: user, WorkingDir: "/",
			Labels: map[string]string{
				"org.opencontainers.image.title":    "metaparticle " + p.name,
				"org.opencontainers.image.version":  version,
				"org.opencontainers.image.licenses": "Apache-2.0",
			},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	return mutate.Append(base, layers...)
}

// archive returns a tarball with one file, the binary. All users may execute the file, and no user
// may write the file. Gated containers run the agent as any user.
func archive(name string, program []byte) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: int64(len(program)), Mode: 0o555,
		ModTime: created.Time, Format: tar.FormatUSTAR,
	}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

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

// pushTimeout bounds the look at one repository of the registry. A registry that answers does so in a second.
const pushTimeout = 20 * time.Second

// pushable returns the place of the product's image in the registry, or an error if the registry does
// not answer, or lets nobody push there with the credentials of this machine.
func (p product) pushable(ctx context.Context, registry, version string, insecure bool) (tag name.Tag, err error) {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	reference := strings.TrimSuffix(registry, "/") + "/" + p.name + ":" + version
	if tag, err = name.NewTag(reference, options...); err != nil {
		return tag, fmt.Errorf("push %s: %w", reference, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pushTimeout, fmt.Errorf("the registry has not answered within %s", pushTimeout))
	defer cancel()
	answer := make(chan error, 1)
	// The check takes no context: without an answer it ends with the program.
	go func() { answer <- remote.CheckPushPermission(tag, authn.DefaultKeychain, remote.DefaultTransport) }()
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return tag, fmt.Errorf("nothing was built, because %s takes no push: %w", reference, err)
	}
	return tag, nil
}

// push pushes the index and all its images to a registry.
func push(ctx context.Context, tag name.Tag, index v1.ImageIndex) error {
	return remote.WriteIndex(tag, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
