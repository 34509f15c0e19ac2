// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"context"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// maxLookUps bounds the concurrent look-ups of one pod, so that a pod with many containers
// cannot fill its namespace's queue of look-ups.
const maxLookUps = 8

// lookUp is the result of a look-up; zero for a container whose image need not be read.
type lookUp struct {
	command image.Command
	err     error
}

// readImages reads the images of the containers at the given places, at most [maxLookUps] at the
// same time. For a container that needs nothing from its image, the result is zero.
func (p *Pod) readImages(ctx context.Context, places []place, images image.Images) []lookUp {
	reader := images.For(p.pullRights())
	answers := make([]lookUp, len(places))
	turns := make(chan struct{}, maxLookUps)
	var wait sync.WaitGroup
	for i, at := range places {
		c := p.container(at)
		if !needsImage(c) {
			continue
		}
		read := func() { answers[i].command, answers[i].err = reader.Command(ctx, c.Image) }
		if isKnown(images, c.Image) {
			read()
			continue
		}
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			read()
		})
	}
	wait.Wait()
	return answers
}

// pullRights returns the rights with which the pod's images are read.
func (p *Pod) pullRights() image.PullRights {
	rights := image.PullRights{Namespace: p.Namespace, ServiceAccount: p.Spec.ServiceAccountName}
	for _, s := range p.Spec.ImagePullSecrets {
		rights.Secrets = append(rights.Secrets, s.Name)
	}
	return rights
}

// needsImage reports whether the shim of a container needs anything from the image.
func needsImage(c *corev1.Container) bool { return len(c.Command) == 0 || needsSignal(c) }

// needsSignal reports whether the image of a container with an explicit command must be
// read for its stop signal. The shim runs the preStop hook at that signal.
func needsSignal(c *corev1.Container) bool {
	if len(c.Command) == 0 || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.StopSignal != nil {
		return false
	}
	_, before := unshim(c.Command)
	return before.StopSignal == "" && before.Platforms == nil
}

// isKnown reports whether the command of an image is in memory, so that the webhook sends no
// request.
func isKnown(images image.Images, named string) bool {
	remembering, ok := images.(interface {
		Known(image string) (image.Command, bool)
	})
	if ok {
		_, ok = remembering.Known(named)
	}
	return ok
}

// signal returns the image's stop signal if all architectures have the same signal, and an empty
// text otherwise. After a failed look-up the result is empty, too, and the failure causes no
// refusal. So the webhook admits a pod with an explicit command even if nobody can read its image.
func (l lookUp) signal() string {
	if l.err != nil {
		return ""
	}
	signals := []string{}
	for _, its := range l.command.Platforms {
		signals = append(signals, its.StopSignal)
	}
	switch slices.Sort(signals); {
	case len(signals) == 0:
		return l.command.StopSignal
	case signals[0] == signals[len(signals)-1]:
		return signals[0]
	}
	return ""
}
