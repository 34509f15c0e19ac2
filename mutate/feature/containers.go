// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxContainers bounds the containers of a pod with a claim, because each container may cost a
// look-up. If each look-up takes 300 ms, and eight look-ups run at the same time, a hundred
// look-ups end within 4 s. That is half of the 8 s that the webhook by default has for one call.
const maxContainers = 100

// defaultContainer is the annotation with the container that "kubectl logs" and "kubectl exec" use
// by default.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// proxies are the names of containers that well-known injectors add to pods. If the pod's
// template is not known, only the name distinguishes a proxy from the application. A gated
// proxy of a mesh would carry no traffic before the pod holds the slot. So the agent could
// not reach the API server through the proxy to acquire the slot.
var proxies = append([]string{
	"daprd",       // Dapr
	"vault-agent", // Vault's injector
}, meshes...)

// meshes are the proxies to which an init container redirects the connections of the pod.
var meshes = []string{
	"istio-proxy",      // Istio, Cloud Service Mesh
	"linkerd-proxy",    // Linkerd
	"consul-dataplane", // Consul
	"kuma-sidecar",     // Kuma, Kong Mesh
}

// judgeNumber refuses a pod with too many containers. The features compare each container
// with all others, which takes long if a pod has many containers. So judgeNumber comes before
// all features.
func judgeNumber(pod *corev1.Pod) reason.Refusals {
	var refusals reason.Refusals
	if n := len(pod.Spec.InitContainers) + len(pod.Spec.Containers); n > maxContainers {
		refusals.Add(reason.ContainerLimit, "the pod has %d containers, which is more than %d", n, maxContainers)
	}
	return refusals
}

// gatedContainers returns the indices of the main containers that wait for the slot. The
// first source that names a container decides: the annotation metaparticle.io/containers, the
// pod template, or the shims of an earlier pass. Without such a source, all containers except
// proxies wait, or all containers if all are proxies. With the shims as the source, a container
// that another injector has added after that pass stays ungated.
func gatedContainers(f Facts) []int {
	indices := func(match func(*corev1.Container) bool) []int {
		var found []int
		for i := range f.Spec.Containers {
			if match(&f.Spec.Containers[i]) {
				found = append(found, i)
			}
		}
		return found
	}
	named := func(names []string) []int {
		return indices(func(c *corev1.Container) bool { return slices.Contains(names, c.Name) })
	}
	if len(f.Request.Containers) > 0 {
		return named(f.Request.Containers)
	}
	if names := containerNames(f.Template); len(names) > 0 && len(missing(f.Pod, names)) == 0 {
		return named(names)
	}
	if before := indices(wasGated); len(before) > 0 {
		return before
	}
	if own := indices(func(c *corev1.Container) bool { return !slices.Contains(proxies, c.Name) }); len(own) > 0 {
		return own
	}
	return indices(func(*corev1.Container) bool { return true })
}

// gatedNames returns the names of the gated main containers.
func gatedNames(p *Pod) []string {
	var names []string
	for _, i := range p.gated {
		names = append(names, p.Spec.Containers[i].Name)
	}
	return names
}

// containerNames returns the names of the main containers of a spec, which may be nil.
func containerNames(spec *corev1.PodSpec) []string {
	if spec == nil {
		return nil
	}
	names := make([]string, len(spec.Containers))
	for i, c := range spec.Containers {
		names[i] = c.Name
	}
	return names
}

// missing returns those names that no container and no init container of the pod has. Injected init
// containers do not count.
func missing(pod *corev1.Pod, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		named := func(c corev1.Container) bool { return c.Name == name }
		return slices.ContainsFunc(pod.Spec.Containers, named) ||
			!isInjected(pod, name) && slices.ContainsFunc(pod.Spec.InitContainers, named)
	})
}

// judgeContainers refuses an annotation that names a container the pod does not have.
func judgeContainers(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	for _, name := range missing(p.Pod, p.Request.Containers) {
		refusals.Add(reason.UnknownContainer, "%s names %q, but the pod has %s",
			api.ContainersAnnotation, name, strings.Join(containerNames(&p.Spec), ", "))
	}
	return refusals
}

// patchContainers makes the first gated container the default container of kubectl, unless the pod
// itself names a default container. An init container never becomes the default.
func patchContainers(p *Pod, d *patch.Document) {
	if len(p.gated) == 0 || api.Leashed(p.Request) {
		return
	}
	if _, ok := p.Annotations[defaultContainer]; !ok {
		d.Set(p.Spec.Containers[p.gated[0]].Name, "metadata", "annotations", defaultContainer)
	}
}
