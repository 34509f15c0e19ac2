// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// Images says what images would run.
type Images interface {
	// For returns what reads images with the rights of one pod: its pull
	// secrets and those of its service account, each read at most once.
	For(rights PullRights) Reader
}

// Reader reads images in one pod's name, several at once.
type Reader interface {
	// Command reads an image's own command. It bounds its own time. It fails
	// with ErrPlatforms if it depends on more than the architecture. The text
	// of its errors is shown to the pod's author: it holds none of a registry.
	Command(ctx context.Context, image string) (Command, error)
}

// PullRights are in whose name an image is read.
type PullRights struct {
	Namespace      string
	ServiceAccount string
	// Secrets are the pull secrets that the pod names.
	Secrets []string
}

// Command is what an image would run.
type Command struct {
	Entrypoint []string
	Cmd        []string
	// StopSignal is as the image has it ("SIGQUIT", "3"), or empty.
	StopSignal string
	// Platforms are the commands by architecture where they differ; the others
	// are empty then.
	Platforms map[string]Command
}

// ErrPlatforms: what an image runs depends on more than the architecture, so
// that nobody can tell at its start which one the runtime took.
var ErrPlatforms = errors.New("the image's platforms of one architecture run different commands")

// shim is what becomes of a gated container.
type shim struct {
	place
	command, args []string
}

// place is where a gated container is: in which list of the pod, and there.
type place struct {
	list  string
	index int
}

// places are where the gated containers are, the init containers first.
func places(gated, inits []int) []place {
	var all []place
	for _, i := range inits {
		all = append(all, place{"initContainers", i})
	}
	for _, i := range gated {
		all = append(all, place{"containers", i})
	}
	return all
}

func (p place) of(pod *corev1.Pod) corev1.Container {
	if p.list == "initContainers" {
		return pod.Spec.InitContainers[p.index]
	}
	return pod.Spec.Containers[p.index]
}

// shimmed: the container's command is the gate already.
func shimmed(c corev1.Container) bool {
	return api.IsShim(c.Command)
}

const (
	// mostContainers bounds the containers of a pod that claims: each may be a
	// look-up, and a node runs about a hundred pods. Eight at once, of 300 ms
	// each, are looked up within the time of one admission.
	mostContainers = 100
	// mostLookUps bounds the look-ups of one pod at once. Pods have few
	// containers, and a pod of many leaves its namespace's share to others.
	mostLookUps = 8
)

// judgeNumber keeps what a pod costs within bounds. It comes first: others
// compare each container with each.
func judgeNumber(pod *corev1.Pod) Refusals {
	var refusals Refusals
	if n := len(pod.Spec.InitContainers) + len(pod.Spec.Containers); n > mostContainers {
		refusals.add(ContainerLimit, "the pod has %d containers, which is more than %d", n, mostContainers)
	}
	return refusals
}

// shimAll works out the gated containers' new commands. The images that have
// to be asked are asked a few at once; the first refusal in the pod's order
// counts.
func shimAll(ctx context.Context, pod *corev1.Pod, gated []place, namespace string, images Images) ([]shim, error) {
	rights := PullRights{Namespace: namespace, ServiceAccount: pod.Spec.ServiceAccountName}
	for _, s := range pod.Spec.ImagePullSecrets {
		rights.Secrets = append(rights.Secrets, s.Name)
	}
	reader := images.For(rights)
	shims := make([]shim, len(gated))
	refused := make([]Refusals, len(gated))
	turns := make(chan struct{}, mostLookUps)
	var wait sync.WaitGroup
	for n, at := range gated {
		one := func() { shims[n], refused[n] = shimOne(ctx, pod, at, reader) }
		if atOnce(at.of(pod), images) {
			one()
			continue
		}
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			one()
		})
	}
	wait.Wait()
	if all := slices.Concat(refused...); len(all) > 0 {
		return nil, all
	}
	return shims, nil
}

// atOnce: nobody has to be asked what a container runs.
func atOnce(c corev1.Container, images Images) bool {
	if len(c.Command) > 0 && !asksSignal(c) {
		return true
	}
	remembering, ok := images.(interface {
		Known(image string) (Command, bool)
	})
	if ok {
		_, ok = remembering.Known(c.Image)
	}
	return ok
}

func shimOne(ctx context.Context, pod *corev1.Pod, at place, images Reader) (shim, Refusals) {
	c := at.of(pod)
	var args []string
	var signal string
	var platforms api.Platforms
	var before api.ExecArgs
	switch {
	case len(c.Command) > 0:
		args, before = unshim(slices.Concat(c.Command, c.Args))
		signal, platforms = before.StopSignal, before.Platforms
		if asksSignal(c) {
			signal = imageSignal(ctx, c.Image, images)
		}
	default:
		var refusals Refusals
		command, err := images.Command(ctx, c.Image)
		switch {
		case errors.Is(err, ErrPlatforms):
			refusals.add(ImagePlatforms, "container %q, image %q", c.Name, c.Image)
			return shim{}, refusals
		case err != nil:
			refusals.add(ImageUnreadable, "container %q, image %q: %v", c.Name, c.Image, err)
			return shim{}, refusals
		}
		args, signal = imageArgs(c, command), command.StopSignal
		platforms = imagePlatforms(c, command)
	}
	if len(args) == 0 && platforms == nil {
		var refusals Refusals
		refusals.add(NoCommand, "container %q, image %q", c.Name, c.Image)
		return shim{}, refusals
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		signal = string(*c.Lifecycle.StopSignal)
	}
	if slices.Contains(keptSignals, strings.TrimPrefix(strings.ToUpper(signal), "SIG")) {
		var refusals Refusals
		refusals.add(Hooks, "container %q is stopped by %s, which a gate is not told of", c.Name, signal)
		return shim{}, refusals
	}
	exec := api.DefaultExecArgs()
	exec.Container, exec.OnLoss, exec.StopSignal, exec.Platforms = c.Name, onLoss(pod, c), signal, platforms
	if at.list == "containers" {
		carryHooks(&exec, pod, c, before)
	}
	return shim{place: at, command: append([]string{api.AgentBinary}, exec.Args()...), args: args}, nil
}

// keptSignals, without "SIG", are those that Go's runtime keeps for itself and
// tells no program of: the shim could not pass them on.
var keptSignals = []string{"CHLD", "CLD", "17", "URG", "23", "PROF", "27", "32", "33", "RTMIN", "RTMIN+0", "34"}

// asksSignal: the command is written out, and so the image has not been asked
// for its stop signal; but by that signal the shim knows that it is to be
// stopped, and when to run the preStop hook.
func asksSignal(c corev1.Container) bool {
	if len(c.Command) == 0 || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.StopSignal != nil {
		return false
	}
	_, before := unshim(c.Command)
	return before.StopSignal == "" && before.Platforms == nil
}

// imageSignal is an image's stop signal, if it can be read and is the same on
// all architectures. Who writes a command out may do so because it cannot be.
func imageSignal(ctx context.Context, image string, images Reader) string {
	command, err := images.Command(ctx, image)
	if err != nil {
		return ""
	}
	signal, first := command.StopSignal, true
	for _, its := range command.Platforms {
		if !first && its.StopSignal != signal {
			return ""
		}
		signal, first = its.StopSignal, false
	}
	return signal
}

// imageArgs is what a runtime would run: the image's entrypoint, then the
// container's args or else the image's cmd. The kubelet expands $(NAME) and $$
// in args and never looks into an image; so the image's dollars are doubled.
func imageArgs(c corev1.Container, command Command) []string {
	args := literal(command.Entrypoint)
	if len(c.Args) > 0 {
		return append(args, c.Args...)
	}
	return append(args, literal(command.Cmd)...)
}

// imagePlatforms is what the image runs on each architecture, where it matters.
// The kubelet expands the container's args alone; so they stay words of their
// own, behind whatever the shim picks.
func imagePlatforms(c corev1.Container, command Command) api.Platforms {
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

func literal(words []string) []string {
	var out []string
	for _, word := range words {
		out = append(out, strings.ReplaceAll(word, "$", "$$"))
	}
	return out
}

// unshim takes the gate out of a command that has it already: as the first
// program, or behind one that another injector put before it. A gate behind the
// gate is no PID 1 and would wait for ever, while the pod holds. What the shim was
// told comes back with it: the image is not asked again for its stop signal, and the
// hooks are nowhere else.
func unshim(words []string) (own []string, before api.ExecArgs) {
	for i := range words {
		if !shimmed(corev1.Container{Command: words[i:]}) {
			continue
		}
		if n := slices.Index(words[i:], "--"); n > 0 {
			return slices.Concat(words[:i], words[i+n+1:]), api.RecallExecArgs(words[i : i+n])
		}
	}
	return words, api.ExecArgs{}
}

// onLoss returns what the shim does after a loss. Where nothing may run twice the loss
// ends the container, and nothing starts it again.
func onLoss(pod *corev1.Pod, c corev1.Container) api.OnLoss {
	never := pod.Spec.RestartPolicy == corev1.RestartPolicyNever
	if c.RestartPolicy != nil {
		never = *c.RestartPolicy == corev1.ContainerRestartPolicyNever
	}
	switch asked := api.OnLoss(pod.Annotations[api.OnLossAnnotation]); {
	case never:
		return api.OnLossEnd
	case asked == "":
		return api.OnLossStandby
	default:
		return asked
	}
}
