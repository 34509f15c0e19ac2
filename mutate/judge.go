// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// judge is everything that speaks against gating the pod as it asks for. The text
// of the pod, or of the template that pods are made from, is looked at for what
// this build's types do not know.
func (p parts) judge(text []byte, kubernetes int) Refusals {
	if !p.request.Shims() {
		return p.judgeOutside(kubernetes)
	}
	refusals := p.judgeShims()
	judgeWaits(p.pod, &refusals)
	p.judgeLowPorts(&refusals)
	judgeHooks(text, p.pod, p.gated, &refusals)
	judgeProbeFields(text, p.pod, p.gated, &refusals)
	return refusals
}

// judgeShims is what speaks against a shim in each gated container.
func (p parts) judgeShims() Refusals {
	var refusals Refusals
	pod := p.pod
	judgePod(pod, &refusals)
	judgeInits(pod, p.gated, p.inits, &refusals)
	judgeNames(pod, &refusals)
	for _, i := range p.gated {
		judgeProbes(pod, pod.Spec.Containers[i], &refusals)
		judgeRestartRules(pod, pod.Spec.Containers[i], &refusals)
	}
	for _, i := range p.inits {
		judgeRestartRules(pod, pod.Spec.InitContainers[i], &refusals)
	}
	for i, c := range pod.Spec.Containers {
		judgeMounts(c, slices.Contains(p.gated, i), &refusals)
		judgePorts(pod, c, &refusals)
	}
	for i, c := range pod.Spec.InitContainers {
		if ours(pod, c.Name) {
			continue
		}
		judgeMounts(c, slices.Contains(p.inits, i), &refusals)
		judgePorts(pod, c, &refusals)
	}
	return refusals
}

func judgePod(pod *corev1.Pod, refusals *Refusals) {
	spec := &pod.Spec
	if spec.HostPID {
		refusals.add(SharedProcesses, "the pod sets hostPID")
	}
	if spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
		refusals.add(SharedProcesses, "the pod sets shareProcessNamespace")
	}
	judgeWindows(pod, refusals)
}

func judgeWindows(pod *corev1.Pod, refusals *Refusals) {
	spec := &pod.Spec
	if (spec.OS != nil && spec.OS.Name == corev1.Windows) || spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) {
		refusals.add(Windows, "the pod asks for Windows")
	}
}

// ours: an init container of this name is an injected one. Only the webhook
// writes the annotation that says so, and it writes all at once.
func ours(pod *corev1.Pod, name string) bool {
	return injected(pod) && slices.Contains(api.Injected, name)
}

func injected(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[api.SlotsAnnotation]
	return ok
}

func judgeNames(pod *corev1.Pod, refusals *Refusals) {
	for _, c := range pod.Spec.Containers {
		if slices.Contains(api.Injected, c.Name) {
			refusals.add(NameTaken, "a container is named %q", c.Name)
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if slices.Contains(api.Injected, c.Name) && !ours(pod, c.Name) {
			refusals.add(NameTaken, "an init container is named %q", c.Name)
		}
	}
	for _, v := range pod.Spec.Volumes {
		own := injected(pod) && (v.EmptyDir != nil || v.Projected != nil)
		if (v.Name == api.Volume || v.Name == api.CredentialsVolume) && !own {
			refusals.add(NameTaken, "a volume is named %q", v.Name)
		}
	}
}

// judgeMounts keeps the injected volumes to those that are meant to have them,
// and their place free.
func judgeMounts(c corev1.Container, gated bool, refusals *Refusals) {
	for _, m := range c.VolumeMounts {
		at := path.Clean(m.MountPath)
		switch {
		case m.Name == api.Volume && gated && m.ReadOnly && at == api.MountPath && m.SubPath == "" && m.SubPathExpr == "":
		case m.Name == api.Volume || m.Name == api.CredentialsVolume:
			refusals.add(NameTaken, "container %q mounts the volume %q", c.Name, m.Name)
		case gated && (at == api.MountPath || strings.HasPrefix(at, api.MountPath+"/")):
			refusals.add(MountTaken, "container %q mounts %q at %s", c.Name, m.Name, m.MountPath)
		}
	}
}

// judgePorts keeps the agent's own port free. On the node's network it has none.
func judgePorts(pod *corev1.Pod, c corev1.Container, refusals *Refusals) {
	for _, p := range c.Ports {
		if p.ContainerPort == api.AgentPort && tcp(p) && !pod.Spec.HostNetwork {
			refusals.add(PortTaken, "container %q declares port %d", c.Name, p.ContainerPort)
		}
	}
}

func tcp(p corev1.ContainerPort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }
