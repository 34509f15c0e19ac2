// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// gatedInits are the indices of the init containers that wait for the slot:
// those that somebody named. None is gated by default, because a standby whose
// init containers have run starts the sooner.
func gatedInits(pod *corev1.Pod, request api.Request) []int {
	var found []int
	for i, c := range pod.Spec.InitContainers {
		if slices.Contains(request.Containers, c.Name) && !ours(pod, c.Name) {
			found = append(found, i)
		}
	}
	return found
}

// judgeInits is what speaks against gating these init containers.
func judgeInits(pod *corev1.Pod, gated, inits []int, refusals *Refusals) {
	for _, i := range inits {
		c := pod.Spec.InitContainers[i]
		switch {
		case c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways:
			refusals.add(InitContainer, "%s names %q, which is a native sidecar: what comes after it counts on its running",
				api.ContainersAnnotation, c.Name)
		case len(gated) == 0:
			refusals.add(InitContainer, "%s names the init container %q and no main container: nothing would keep the slot after it",
				api.ContainersAnnotation, c.Name)
		}
	}
}

// initNames are the names of the gated init containers.
func (p parts) initNames() []string {
	var names []string
	for _, i := range p.inits {
		names = append(names, p.pod.Spec.InitContainers[i].Name)
	}
	return names
}

// put puts an injected init container where it belongs, and gives it what it
// is to have. It comes after the pod's own: they run when they did, and
// sidecars are stopped in the reverse order of their start, so a mesh's proxy
// still carries the agent's last write. Only a gated one has to find the agent,
// and the agent has to find the note turned.
func (p parts) put(d *document, c corev1.Container) {
	list := []any{"spec", "initContainers"}
	before := -1
	after := p.initNames()
	if c.Name == api.TurnContainer {
		after = append(after, api.AgentContainer)
	}
	for _, name := range after {
		if i, ok := d.index("name", name, list...); ok && (before < 0 || i < before) {
			before = i
		}
	}
	at, there := d.index("name", c.Name, list...)
	switch {
	case before < 0, there && at < before:
	case there:
		value := d.get(append(list, at)...)
		d.cut(at, list...)
		d.insert(value, before, list...)
	default:
		d.insert(c, before, list...)
	}
	d.ensure("name", c, list...)
}
