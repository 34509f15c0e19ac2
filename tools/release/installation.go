// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/metaparticle-io/metaparticle/tools/render"
)

// images builds the images, and writes the lists of their modules. If pushTo is not empty, images
// also pushes the images.
func (r *release) images(ctx context.Context) error {
	args := []string{"./tools/images", "-out", r.directory, "-version", r.version, "-platforms", strings.Join(r.platforms, ",")}
	if r.pushTo != "" {
		args = append(args, "-push", r.pushTo)
	}
	if r.insecure {
		args = append(args, "-insecure")
	}
	table, err := tool(ctx, args...)
	if err != nil {
		return err
	}
	r.digests = map[string]string{}
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "all" {
			r.digests[fields[0]] = fields[2]
		}
	}
	for _, image := range slices.Sorted(maps.Keys(r.digests)) {
		folder := filepath.Join(r.directory, image)
		if err := r.listModules(image, folder); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
		if err := os.RemoveAll(folder); err != nil { // the tarball has the same content
			return err
		}
	}
	return nil
}

// listModules writes a list of the modules of the image's binary, for each platform.
func (r *release) listModules(image, folder string) error {
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return err
	}
	top, err := index.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		return errors.Join(err, errors.New("not one index in the layout"))
	}
	platforms, err := index.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		return err
	}
	manifest, err := platforms.IndexManifest()
	if err != nil {
		return err
	}
	for _, entry := range manifest.Manifests {
		of, err := platforms.Image(entry.Digest)
		if err != nil {
			return err
		}
		program, err := mainProgram(of)
		if err != nil {
			return err
		}
		if err := r.bill(image, entry.Platform.OS+"/"+entry.Platform.Architecture, program); err != nil {
			return err
		}
	}
	return nil
}

// mainProgram returns the program that an image starts: the content of the first file in the first
// layer. The shim's program, in another layer of the agent's image, links no module that the agent's
// program does not link.
func mainProgram(image v1.Image) ([]byte, error) {
	layers, err := image.Layers()
	if err != nil || len(layers) == 0 {
		return nil, errors.Join(err, errors.New("no layer in the image"))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	files := tar.NewReader(content)
	if _, err := files.Next(); err != nil {
		return nil, err
	}
	return io.ReadAll(files)
}

// image returns the reference of an image, by its digest.
func (r *release) image(of string) string { return r.registry + "/" + of + "@" + r.digests[of] }

// manifests writes the objects of an installation, in the order in which kubectl applies them.
func (r *release) manifests(context.Context) error {
	objects, err := render.Objects(render.Settings{Manifests: "manifests", WebhookImage: r.image("webhook"), AgentImage: r.image("agent")})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Metaparticle %s: kubectl apply --server-side -f install.yaml\n", r.version)
	if err := render.Print(&text, objects); err != nil {
		return err
	}
	return r.write("install.yaml", text.Bytes())
}

// chart packs the Helm chart. If pushTo is not empty, chart also pushes the chart.
func (r *release) chart(ctx context.Context) error {
	directory, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if _, err := tool(ctx, "./tools/chart", "-out", directory, "-version", r.version, "-registry", r.registry,
		"-webhook-digest", r.digests["webhook"], "-agent-digest", r.digests["agent"]); err != nil {
		return err
	}
	var files []file
	err = filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(directory, path)
		files = append(files, file{filepath.ToSlash(relative), text, 0o644})
		return err
	})
	if err != nil {
		return err
	}
	packed, err := tarball(files)
	if err != nil {
		return err
	}
	if err := r.write("metaparticle-"+r.number()+".tgz", packed); err != nil || r.pushTo == "" {
		return err
	}
	return r.pushChart(ctx, packed)
}

// pushChart pushes the chart as Helm does: https://helm.sh/docs/topics/registries/.
func (r *release) pushChart(ctx context.Context, packed []byte) error {
	artefact, err := helmArtefact(r.number(), packed)
	if err != nil {
		return err
	}
	var options []name.Option
	if r.insecure {
		options = append(options, name.Insecure)
	}
	tag, err := name.NewTag(r.pushTo+"/metaparticle:"+r.number(), options...)
	if err != nil {
		return err
	}
	return remote.Write(tag, artefact, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}

func (r *release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.directory, name), content, 0o644)
}
