// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command images builds the product's container images for each platform, without
// a container engine:
//
//	go run ./tools/images -out out/images [-push HOST/PREFIX [-insecure]] [-archive FILE] [-version V]
//
// The command writes each image as an OCI layout (out/images/agent) and as a tarball of
// the layout (out/images/agent.tar). With -push the command pushes to
// HOST/PREFIX/agent:V, with the credentials from `docker login`; it refuses a registry that takes
// no push before it compiles anything. With -archive the command writes all images into one file,
// for nodes that pull from no registry.
//
// Equal sources, version and Go release make equal digests, on any machine and at
// any time. An image contains only static binaries, and the image's user is not root. The
// image has no shell and no certificates; a binary that needs public CAs links them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
)

// products are the binaries of this repository that are shipped as images.
var products = []product{
	{name: "webhook", source: "./cmd/webhook"},
	{name: "agent", source: "./cmd/agent", settings: gobuild.Agent, beside: []binary{{"shim", "./cmd/shim"}}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], products, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, products []product, out io.Writer) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	directory := flags.String("out", "out/images", "`directory` to write to")
	version := flags.String("version", "dev", "version of the programs, and tag of the images")
	list := flags.String("platforms", "linux/amd64,linux/arm64", "platforms, separated by commas")
	only := flags.String("only", "", "build this image alone")
	registry := flags.String("push", "", "push to this `HOST/PREFIX`")
	insecure := flags.Bool("insecure", false, "push over plain HTTP")
	archive := flags.String("archive", "", "write all images of the only platform into this `file`, which nodes load without a registry")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	platforms, err := parsePlatforms(*list)
	if err != nil {
		return err
	}
	if *only != "" {
		products = slices.DeleteFunc(slices.Clone(products), func(p product) bool { return p.name != *only })
		if len(products) == 0 {
			return fmt.Errorf("no image is called %q", *only)
		}
	}
	if *archive != "" && len(platforms) != 1 {
		return fmt.Errorf("-archive takes the images of one platform, and -platforms names %d", len(platforms))
	}
	tags, err := targets(ctx, products, *registry, *version, *insecure)
	if err != nil {
		return err
	}
	archived := loadable{}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range products {
		index, err := p.index(ctx, *version, platforms)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := write(filepath.Join(*directory, p.name), *version, index); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if tag, ok := tags[p.name]; ok {
			if err := push(ctx, tag, index); err != nil {
				return fmt.Errorf("push %s: %w", tag, err)
			}
		}
		if err := describe(table, p.name, index); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if *archive == "" {
			continue
		}
		loaded, err := archived.add(p.name, *version, index)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(table, "%s\tloaded\t%s\t\n", p.name, loaded)
	}
	if *archive != "" {
		if err := archived.write(*archive); err != nil {
			return fmt.Errorf("write %s: %w", *archive, err)
		}
	}
	return table.Flush()
}

// targets returns the tag of each product that is to be pushed; none without a registry. A registry that is
// wrong must not show only after minutes of compilation.
func targets(ctx context.Context, products []product, registry, version string, insecure bool) (map[string]name.Tag, error) {
	tags := map[string]name.Tag{}
	if registry == "" {
		return tags, nil
	}
	for _, p := range products {
		tag, err := p.pushable(ctx, registry, version, insecure)
		if err != nil {
			return nil, err
		}
		tags[p.name] = tag
	}
	return tags, nil
}

// parsePlatforms parses a list such as linux/amd64,linux/arm64.
func parsePlatforms(list string) ([]v1.Platform, error) {
	var platforms []v1.Platform
	for text := range strings.SplitSeq(list, ",") {
		p, err := v1.ParsePlatform(text)
		if err != nil || p.OS == "" || p.Architecture == "" || p.Variant != "" {
			return nil, fmt.Errorf("platform %q is not of the form linux/amd64", text)
		}
		platforms = append(platforms, *p)
	}
	return platforms, nil
}

// describe adds the lines of one index to the table. The first line has the index's digest. The line
// of each platform has the digest of the platform's image, and the size of a node's download.
func describe(w io.Writer, name string, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%s\tall\t%s\t\n", name, digest)
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, entry := range manifest.Manifests {
		image, err := index.Image(entry.Digest)
		if err != nil {
			return err
		}
		layers, err := image.Manifest()
		if err != nil {
			return err
		}
		size := entry.Size + layers.Config.Size
		for _, layer := range layers.Layers {
			size += layer.Size
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MB\n", name, entry.Platform, entry.Digest, float64(size)/1e6)
	}
	return nil
}
