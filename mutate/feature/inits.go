// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// gatedInits returns the indices of the init containers that wait for the slot. An init
// container that the annotation metaparticle.io/containers does not name runs before the pod
// gets a slot. So the application can start sooner after the pod gets the slot.
func gatedInits(f Facts) []int {
	var found []int
	for i, c := range f.Spec.InitContainers {
		if slices.Contains(f.Request.Containers, c.Name) && !isInjected(f.Pod, c.Name) {
			found = append(found, i)
		}
	}
	return found
}

// HasGatedInit reports whether the pods of a template have a gated init container. The
// caller passes a template without injected containers.
func HasGatedInit(template *corev1.PodSpec, request api.Request) bool {
	return len(gatedInits(Facts{Pod: &corev1.Pod{Spec: *template}, Request: request})) > 0
}

// judgeInits refuses gated native sidecars, because the containers after a native sidecar need that
// sidecar. The function also refuses gated init containers in a pod with neither a once claim nor a
// gated main container. In such a pod nothing would keep the slot after the init containers.
func judgeInits(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if !p.Request.Shims() {
		return nil
	}
	_, once := p.Request.Once()
	for _, i := range p.inits {
		c := p.Spec.InitContainers[i]
		switch {
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			refusals.Add(reason.InitContainer, "%s names %q, which is a native sidecar: the containers after it need it",
				api.ContainersAnnotation, c.Name)
		case len(p.gated) == 0 && !once:
			refusals.Add(reason.InitContainer, "%s names the init container %q and no main container: nothing would keep the slot after it",
				api.ContainersAnnotation, c.Name)
		}
	}
	return refusals
}

// initNames returns the names of the gated init containers.
func (p *Pod) initNames() []string {
	var names []string
	for _, i := range p.inits {
		names = append(names, p.Spec.InitContainers[i].Name)
	}
	return names
}
