// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// child is the command that the shim of a container starts. The command comes from the
// container's spec or from its image.
type child struct {
	args      []string
	signal    string
	platforms api.Platforms
	// before are the arguments of the shim that an earlier pass has put in front of the
	// command.
	before api.ExecArgs
}

// signals returns the texts of the stop signals of the child: one, or one of each architecture.
func (c child) signals() []string {
	if c.signal != "" {
		return []string{c.signal}
	}
	signals := []string{}
	for _, its := range c.platforms {
		if its.StopSignal != "" {
			signals = append(signals, its.StopSignal)
		}
	}
	slices.Sort(signals)
	return signals
}

// LookUp makes the shims of the gated containers. LookUp reads the image of a container if
// the shim needs the image's command, or its stop signal for a preStop hook. The error is
// [reason.Refusals], in the order of the pod's containers, or [load.ErrOverloaded].
func (p *Pod) LookUp(ctx context.Context, images image.Images) error {
	places := p.places()
	if len(places) == 0 {
		return nil
	}
	answers, err := p.readImages(ctx, places, images)
	if err != nil {
		return err
	}
	shims := make([]shim, len(places))
	var refusals reason.Refusals
	for i, at := range places {
		its, refused := p.newShim(at, answers[i])
		shims[i], refusals = its, append(refusals, refused...)
	}
	p.shims = shims
	if len(refusals) > 0 {
		return refusals
	}
	return nil
}

// newShim returns the shim of the container at a place, or the refusal of the container.
func (p *Pod) newShim(at place, read lookUp) (shim, reason.Refusals) {
	c := p.container(at)
	its, refusals := childOf(c, read)
	if len(refusals) > 0 {
		return shim{}, refusals
	}
	if api.Leashed(p.Request) && (its.before.PostStart != nil || its.before.PreStop != nil) {
		refusals.Add(reason.Leftover, "container %q has the hooks of the gate %q in its command", c.Name, api.GateContainer)
		return shim{}, refusals
	}
	if len(its.args) == 0 && len(its.platforms) == 0 {
		refusals.Add(reason.NoCommand, "container %q, image %q", c.Name, c.Image)
		return shim{}, refusals
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		its.signal = string(*c.Lifecycle.StopSignal)
	}
	for _, signal := range its.signals() {
		switch _, err := api.ParseStopSignal(signal); {
		case errors.Is(err, api.ErrKeptSignal):
			refusals.Add(reason.Hooks, "container %q has the stop signal %s, which the shim cannot receive", c.Name, signal)
			return shim{}, refusals
		case err != nil:
			refusals.Add(reason.Hooks, "container %q: the stop signal %q %v", c.Name, signal, err)
			return shim{}, refusals
		}
	}
	return shim{place: at, command: p.shimCommand(at, its), args: its.args, platforms: its.platforms}, nil
}

// shimCommand returns the command that starts the shim of the container at a place.
func (p *Pod) shimCommand(at place, its child) []string {
	c, exec := p.container(at), api.DefaultExecArgs()
	exec.Container, exec.OnLoss, exec.StopSignal, exec.Platforms = c.Name, p.onLoss(c), its.signal, its.platforms
	if api.Leashed(p.Request) {
		// The child starts without a wait, and the kubelet itself runs the hooks. So the shim needs
		// no further arguments.
		return append([]string{api.ShimProgram}, exec.Args()...)
	}
	exec.OnBusy, exec.WaitAtMost = p.Request.OnBusy, p.Request.WaitAtMost
	_, exec.MayBeDone = p.Request.Once()
	exec.MayBeDone = exec.MayBeDone || p.run() != ""
	exec.Unbounded = p.Request.StartsOnly()
	exec.Shards = p.Request.Shards()
	if at.list == mainContainers {
		p.carryHooks(&exec, c, its.before)
	}
	return append([]string{api.ShimProgram}, exec.Args()...)
}

// childOf returns the child of a container. An explicit command overrides the image's command.
func childOf(c *corev1.Container, read lookUp) (child, reason.Refusals) {
	if len(c.Command) > 0 {
		args, before := unshim(slices.Concat(c.Command, c.Args))
		its := child{
			args: args, before: before,
			signal: before.StopSignal, platforms: before.Platforms,
		}
		if needsSignal(c) {
			its.signal = read.signal()
		}
		return its, nil
	}
	var refusals reason.Refusals
	switch {
	case errors.Is(read.err, image.ErrPlatforms):
		refusals.Add(reason.ImagePlatforms, "container %q, image %q", c.Name, c.Image)
		return child{}, refusals
	case read.err != nil:
		refusals.Add(reason.ImageUnreadable, "container %q, image %q: %v", c.Name, c.Image, read.err)
		return child{}, refusals
	}
	return child{
		args:      imageArgs(c, read.command),
		signal:    read.command.StopSignal,
		platforms: imagePlatforms(c, read.command),
	}, nil
}

// imageArgs returns the words that a container runtime would run: the image's entrypoint,
// then the container's args or else the image's cmd.
func imageArgs(c *corev1.Container, command image.Command) []string {
	args := literals(command.Entrypoint)
	if len(c.Args) > 0 {
		return append(args, c.Args...)
	}
	return append(args, literals(command.Cmd)...)
}

// imagePlatforms returns the image's commands by architecture, if they differ. The shim
// appends the container's args to the command that it picks. The kubelet must expand the
// variables of the args, so the args stay in the container's own field. The kubelet must not
// expand the image's command, so the command is in the shim's arguments instead.
func imagePlatforms(c *corev1.Container, command image.Command) api.Platforms {
	all := api.Platforms{}
	some := len(c.Args) > 0
	for arch, its := range command.Platforms {
		words := slices.Clone(its.Entrypoint)
		if len(c.Args) == 0 {
			words = append(words, its.Cmd...)
		}
		some = some || len(words) > 0
		all[arch] = api.PlatformCommand{Command: words, StopSignal: its.StopSignal}
	}
	if len(all) == 0 || !some {
		return nil
	}
	return all
}

// patchShims puts the shims in front of the commands of the gated containers.
func patchShims(p *Pod, d *patch.Document) {
	for _, s := range p.shims {
		d.Set(s.command, s.path("command")...)
		if len(s.args) > 0 {
			d.Set(s.args, s.path("args")...)
		}
	}
}

// literals doubles the dollars of words, so that the kubelet leaves the words as they are. The
// kubelet expands $(NAME) and $$ in a command.
func literals(words []string) []string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = strings.ReplaceAll(word, "$", "$$")
	}
	return out
}
