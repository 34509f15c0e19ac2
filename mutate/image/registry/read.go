// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// command reads the command of an image. For an index, the function reads all platforms, because
// the webhook does not know the pod's node yet.
func (r *repository) command(ctx context.Context, digest string) (image.Command, error) {
	var its manifest
	if err := r.content(ctx, "manifests", descriptor{Digest: digest}, its.read); err != nil {
		return image.Command{}, err
	}
	var command image.Command
	var err error
	if its.index {
		command, err = r.index(ctx, its.Manifests)
	} else {
		command, err = r.image(ctx, its)
	}
	if err == nil && costOf(command) > maxCommand {
		err = errCommand
	}
	if err != nil {
		return image.Command{}, err
	}
	return command, nil
}

// manifest has the needed fields of an image's manifest, or of an index.
type manifest struct {
	Config    descriptor  `json:"config"`
	Manifests descriptors `json:"manifests"`
	index     bool
}

func (m *manifest) read(text []byte, mediaType types.MediaType) error {
	m.index = mediaType.IsIndex()
	if !m.index && !mediaType.IsImage() {
		return fmt.Errorf("%w: media type %q", errNotImage, mediaType)
	}
	return decode(text, m)
}

// image reads the command of the image of one platform.
func (r *repository) image(ctx context.Context, its manifest) (image.Command, error) {
	var file configuration
	err := r.content(ctx, "blobs", its.Config, func(text []byte, _ types.MediaType) error { return decode(text, &file) })
	if err != nil {
		return image.Command{}, err
	}
	command := image.Command{Entrypoint: file.Config.Entrypoint, Cmd: file.Config.Cmd, StopSignal: file.Config.StopSignal}
	if costOf(command) > maxCommand {
		return image.Command{}, errCommand
	}
	return command, nil
}

// index reads the commands of all runnable platforms, at most [maxRequests] platforms at the same
// time. Then the function joins these commands.
func (r *repository) index(ctx context.Context, entries []descriptor) (image.Command, error) {
	platforms := slices.DeleteFunc(entries, func(d descriptor) bool { return !runnable(d) })
	switch {
	case len(platforms) == 0:
		return image.Command{}, errPlatform
	case len(platforms) > maxPlatforms:
		return image.Command{}, fmt.Errorf("%w: %d platforms", errSize, len(platforms))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	commands := make([]image.Command, len(platforms))
	turns := make(chan struct{}, maxRequests)
	var wait sync.WaitGroup
	for i, d := range platforms {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			var err error
			if commands[i], err = r.platform(ctx, d); err != nil {
				cancel(err) // one failure ends the whole look-up
			}
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return image.Command{}, err
	}
	return join(platforms, commands)
}

func (r *repository) platform(ctx context.Context, d descriptor) (image.Command, error) {
	var its manifest
	err := r.content(ctx, "manifests", d, func(text []byte, _ types.MediaType) error { return decode(text, &its) })
	if err != nil {
		return image.Command{}, err
	}
	return r.image(ctx, its)
}

// join joins the commands of all platforms into one [image.Command]. If the commands differ, the
// result has one command for each architecture. The shim cannot tell variants of one architecture
// apart, so their commands must be equal.
func join(platforms []descriptor, commands []image.Command) (image.Command, error) {
	if !slices.ContainsFunc(commands, func(c image.Command) bool { return !same(commands[0], c) }) {
		return commands[0], nil
	}
	all := map[string]image.Command{}
	for i, d := range platforms {
		if d.Platform == nil || d.Platform.Architecture == "" {
			return image.Command{}, image.ErrPlatforms
		}
		arch := d.Platform.Architecture
		if before, ok := all[arch]; ok && !same(before, commands[i]) {
			return image.Command{}, image.ErrPlatforms
		}
		all[arch] = commands[i]
	}
	return image.Command{Platforms: all}, nil
}

// runnable reports whether a descriptor names an image for Linux, or an image without a platform.
// An attestation is not runnable, because it names the platform "unknown".
func runnable(d descriptor) bool {
	return d.MediaType.IsImage() && (d.Platform == nil || d.Platform.OS == "" || d.Platform.OS == "linux")
}

func same(a, b image.Command) bool {
	return slices.Equal(a.Entrypoint, b.Entrypoint) && slices.Equal(a.Cmd, b.Cmd) && a.StopSignal == b.StopSignal
}
