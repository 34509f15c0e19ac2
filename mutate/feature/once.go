// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeOnce refuses a once claim of several containers, and of a container that the kubelet
// starts again after its success.
func judgeOnce(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	places := p.places()
	if p.Request.OnceKey() == "" || len(places) == 0 {
		return nil
	}
	if len(places) > 1 {
		refusals.Add(reason.OnceContainers, "%s is for one container, and the pod gates %d", api.OnceAnnotation, len(places))
		return refusals
	}
	at := places[0]
	c := p.container(at)
	switch {
	case at.list == mainContainers && p.restarts(c) == corev1.ContainerRestartPolicyAlways:
		refusals.Add(reason.OnceRestarts, "%s is set, and the kubelet always restarts container %q", api.OnceAnnotation, c.Name)
	case slices.ContainsFunc(c.RestartPolicyRules, restartsAfterSuccess):
		refusals.Add(reason.OnceRestarts, "%s is set, and a restart rule of container %q matches exit code 0", api.OnceAnnotation, c.Name)
	}
	return refusals
}

// warnOfFiles warns of a volume of the pod, or of its node. The container of a once claim
// writes such a volume, and a later container mounts it. Only the pod that runs the
// container has these files.
func warnOfFiles(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	places := p.places()
	if p.Request.OnceKey() == "" || len(places) != 1 || places[0].list != initContainers {
		return nil
	}
	c := p.container(places[0])
	for _, v := range p.Spec.Volumes {
		own := v.EmptyDir != nil || v.Ephemeral != nil || v.HostPath != nil
		if !own || v.Name == api.Volume || !writes(c, v.Name) {
			continue
		}
		for _, at := range p.own() {
			later := at.list == mainContainers || at.index > places[0].index
			if reader := p.container(at); later && mounts(reader, v.Name) {
				warnings.Add(reason.OnceWritesPod, "container %q of %s writes the volume %q, which container %q mounts", c.Name, api.OnceAnnotation, v.Name, reader.Name)
				break
			}
		}
	}
	return warnings
}

// mounts reports whether the container mounts the volume.
func mounts(c *corev1.Container, volume string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
}

// writes reports whether the container mounts the volume for writing.
func writes(c *corev1.Container, volume string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume && !m.ReadOnly })
}
