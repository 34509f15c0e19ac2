// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// Origin has the facts that the webhook learns from a pod's controllers.
type Origin struct {
	// Workload is the top-most workload that the pod belongs to. For a pod template, the
	// workload's name is empty.
	Workload api.Workload
	// Template is the pod template of this very pod; nil if the template is not
	// known for certain. By default the webhook gates the containers of the template,
	// because the template has no containers of other injectors.
	Template *corev1.PodSpec
	// Revision identifies the pod's template among the templates of the workload. The zero
	// value stands for a template that the controller does not number.
	Revision api.Revision
	// MinReady is the controller's minReadySeconds; zero if the value is not known.
	MinReady time.Duration
	// ReplacesUnready reports that the controller replaces each old pod that is not Ready,
	// however many pods are unavailable. The field is false without a Revision.
	ReplacesUnready bool
	// Run is the Job that has made this very pod; zero if no Job has made the pod.
	Run Run
	// Apart tells why pods of other workloads may have to compete for the slot ([Apart]).
	Apart string
	// Preview reports that no controller has made the pod: "kubectl metaparticle inject" shows
	// the pod of a manifest.
	Preview bool
}

// Run is a Job. The pods of a Job can wait for each other at a barrier.
type Run struct {
	UID string
	// AtOnce is the number of pods that the Job runs at the same time.
	AtOnce int
	// Completions is the field of that name in the Job's spec; nil if the field is not set.
	Completions *int32
	// Indexed reports that the Job gives each of its pods an index.
	Indexed bool
}

// Facts is everything that the webhook knows about a pod with a claim, conditions or a
// barrier, or about the template of such pods.
type Facts struct {
	// Pod is the decoded pod. No feature changes it.
	*corev1.Pod
	// Document is the JSON object that contains the pod, at Path.
	Document *patch.Document
	Path     []any
	Request  api.Request
	// Namespace is the namespace in which the pod is created.
	Namespace string
	Origin
	// Limits are the LimitRanges of the namespace, as far as the webhook knows them.
	Limits []corev1.LimitRange
	// Kubernetes is the minor version of the cluster's Kubernetes, 37 for 1.37. The field is zero
	// if the version is not known.
	Kubernetes int
	AgentImage string
}

// Pod is a pod with a claim, conditions or a barrier, as the features see it.
type Pod struct {
	Facts
	// gated and inits are the indices of the main containers, and of the init containers, that
	// wait for the slot.
	gated, inits []int
	// probes are the probes of the gated containers.
	probes []carriedProbe
	// hindered is the declared port for which no standby is Ready, although the annotations allow that;
	// the zero value for none.
	hindered corev1.ContainerPort
	// shims are the new commands of the gated containers. LookUp fills them.
	shims []shim
}

// carriedProbe is a probe of a gated container, and its form for the agent.
type carriedProbe struct {
	place     place
	container *corev1.Container
	kind      probeKind
	// declared is nil if an earlier pass has moved the probe into the agent's arguments.
	declared *corev1.Probe
	carried  *api.Probe
	problem  string
}

// shim is the new command of a gated container.
type shim struct {
	place
	command, args []string
	platforms     api.Platforms
}

// isTemplate reports whether the pod is a pod template of a workload.
func (f Facts) isTemplate() bool { return len(f.Path) > 0 }

// field returns the value of a field of the pod's JSON text. The text may have fields that
// the Go types of this build do not know.
func (f Facts) field(path ...any) any { return f.Document.Get(slices.Concat(f.Path, path)...) }

// place locates a container by the name of one of the pod's lists, and by the index in that
// list.
type place struct {
	list  string
	index int
}

// These are the JSON names of the pod's lists of containers.
const (
	mainContainers = "containers"
	initContainers = "initContainers"
)

// path returns the path of a field of the container.
func (at place) path(field ...any) []any {
	return append([]any{"spec", at.list, at.index}, field...)
}

// places returns the places of the containers that get a shim, the init containers first.
func (p *Pod) places() []place {
	if !api.HasShims(p.Request) {
		return nil
	}
	places := make([]place, 0, len(p.inits)+len(p.gated))
	for _, i := range p.inits {
		places = append(places, place{initContainers, i})
	}
	for _, i := range p.gated {
		places = append(places, place{mainContainers, i})
	}
	return places
}

// getsShim reports whether the container at a place gets a shim.
func (p *Pod) getsShim(at place) bool {
	gated := p.gated
	if at.list == initContainers {
		gated = p.inits
	}
	return api.HasShims(p.Request) && slices.Contains(gated, at.index)
}

// container returns the container at a place.
func (f Facts) container(at place) *corev1.Container {
	if at.list == initContainers {
		return &f.Spec.InitContainers[at.index]
	}
	return &f.Spec.Containers[at.index]
}

// own returns the places of the pod's own containers, without the injected containers. With
// shims the main containers come first, because most features concern them. Without shims
// the containers are in the order of their start.
func (f Facts) own() []place {
	mains, inits := make([]place, 0, len(f.Spec.Containers)), make([]place, 0, len(f.Spec.InitContainers))
	for i := range f.Spec.Containers {
		mains = append(mains, place{mainContainers, i})
	}
	for i, c := range f.Spec.InitContainers {
		if !isInjected(f.Pod, c.Name) {
			inits = append(inits, place{initContainers, i})
		}
	}
	if api.HasShims(f.Request) {
		return append(mains, inits...)
	}
	return append(inits, mains...)
}

// passed reports whether the pod has passed the webhook before. The sign is the annotation
// metaparticle.io/slots. In a pod that claims nothing, the sign is the label
// metaparticle.io/gated. Only the webhook writes such a sign, together with all injected parts.
func passed(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[api.SlotsAnnotation]
	return ok || pod.Labels[api.GatedLabel] == api.GatedAfter
}

// isInjected reports whether the pod's init container of this name is an injected container.
func isInjected(pod *corev1.Pod, name string) bool {
	return passed(pod) && slices.Contains(api.Injected, name)
}
