// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/metaparticle-io/metaparticle/mutate"
)

// read fetches what an image runs: for an index, what all of its platforms
// run. Which node a pod will meet is not known yet.
func read(ctx context.Context, puller *remote.Puller, exact name.Digest) (mutate.Command, error) {
	described, err := puller.Get(ctx, exact)
	if err != nil {
		return mutate.Command{}, err
	}
	switch {
	case described.MediaType.IsIndex():
		index, err := described.ImageIndex()
		if err != nil {
			return mutate.Command{}, err
		}
		return readIndex(index)
	case described.MediaType.IsImage():
		image, err := described.Image()
		if err != nil {
			return mutate.Command{}, err
		}
		return readImage(image)
	default:
		return mutate.Command{}, fmt.Errorf("media type %q is no image", described.MediaType)
	}
}

func readImage(image v1.Image) (mutate.Command, error) {
	file, err := image.ConfigFile()
	if err != nil {
		return mutate.Command{}, err
	}
	return mutate.Command{
		Entrypoint: file.Config.Entrypoint,
		Cmd:        file.Config.Cmd,
		StopSignal: file.Config.StopSignal,
	}, nil
}

func readIndex(index v1.ImageIndex) (mutate.Command, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return mutate.Command{}, err
	}
	platforms := slices.DeleteFunc(slices.Clone(manifest.Manifests), func(d v1.Descriptor) bool { return !runnable(d) })
	switch {
	case len(platforms) == 0:
		return mutate.Command{}, errPlatform
	case len(platforms) > maxPlatforms:
		return mutate.Command{}, fmt.Errorf("%d platforms are more than %d", len(platforms), maxPlatforms)
	}
	commands := make([]mutate.Command, len(platforms))
	errs := make([]error, len(platforms))
	var wait sync.WaitGroup
	for i, d := range platforms {
		wait.Go(func() { commands[i], errs[i] = readPlatform(index, d) })
	}
	wait.Wait()
	for i := range platforms {
		if errs[i] != nil {
			return mutate.Command{}, fmt.Errorf("platform %v: %w", platforms[i].Platform, errs[i])
		}
	}
	return join(platforms, commands)
}

// join makes one command of those of all platforms: by architecture, if they
// differ. Variants of one architecture cannot be told apart by who runs there.
func join(platforms []v1.Descriptor, commands []mutate.Command) (mutate.Command, error) {
	if !slices.ContainsFunc(commands, func(c mutate.Command) bool { return !same(commands[0], c) }) {
		return commands[0], nil
	}
	all := map[string]mutate.Command{}
	for i, d := range platforms {
		if d.Platform == nil || d.Platform.Architecture == "" {
			return mutate.Command{}, mutate.ErrPlatforms
		}
		arch := d.Platform.Architecture
		if before, ok := all[arch]; ok && !same(before, commands[i]) {
			return mutate.Command{}, mutate.ErrPlatforms
		}
		all[arch] = commands[i]
	}
	return mutate.Command{Platforms: all}, nil
}

// runnable: an image for Linux, or one that does not say what it is for.
// Attestations say "unknown".
func runnable(d v1.Descriptor) bool {
	return d.MediaType.IsImage() && (d.Platform == nil || d.Platform.OS == "" || d.Platform.OS == "linux")
}

func readPlatform(index v1.ImageIndex, d v1.Descriptor) (mutate.Command, error) {
	image, err := index.Image(d.Digest)
	if err != nil {
		return mutate.Command{}, err
	}
	return readImage(image)
}

func same(a, b mutate.Command) bool {
	return slices.Equal(a.Entrypoint, b.Entrypoint) && slices.Equal(a.Cmd, b.Cmd) && a.StopSignal == b.StopSignal
}
