// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package public puts images into the test cluster's registry under the names that official
// images have on the internet. The nodes of the test cluster cannot reach the internet, and
// ask that registry for every image.
package public

import (
	"context"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/test/image/apps"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// images are the images that examples in the documentation use. Each image has the software that an
// example needs, in the version of the official image.
var images = map[string]func(context.Context) (v1.Image, error){
	"debian:bookworm-slim":      debian(oci.Config{Cmd: []string{"bash"}}),
	"python:3.11-slim-bookworm": debian(oci.Config{Cmd: []string{"python3"}}, "python3"),
	"redis:7.0-bookworm": func(ctx context.Context) (v1.Image, error) {
		return apps.Image(ctx, "redis", oci.Uncompressed)
	},
	"postgres:15-bookworm": func(ctx context.Context) (v1.Image, error) {
		return apps.Image(ctx, "postgresql", oci.Uncompressed)
	},
}

// debian returns a function that makes an image of Debian packages.
func debian(config oci.Config, packages ...string) func(context.Context) (v1.Image, error) {
	return func(ctx context.Context) (v1.Image, error) {
		return oci.Debian(ctx, packages, config, oci.Uncompressed)
	}
}

// Tutorials are the images that the tutorials use.
var Tutorials = []string{"debian:bookworm-slim", "python:3.11-slim-bookworm"}

// Push puts the images with the given names into the registry, or all images of the examples and
// tutorials without a name.
func Push(ctx context.Context, registry string, names ...string) error {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(images))
	}
	for _, name := range names {
		image, err := images[name](ctx)
		if err != nil {
			return err
		}
		if err := oci.Push(ctx, registry+"/library/"+name, image); err != nil {
			return err
		}
	}
	return nil
}
