// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
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
	if _, once := p.Request.Once(); !once || len(places) == 0 {
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

// onceKey returns the key of the pod's once claim; empty without one. The key of a claim
// without a name is the version of the gated container.
func (p *Pod) onceKey() string {
	claim, once := p.Request.Once()
	if !once || claim.Name != "" || len(p.shims) != 1 {
		return claim.Key
	}
	s := p.shims[0]
	c := p.container(s.place)
	work := workVersion{p.UID, c.Image, s.args, s.platforms, c.WorkingDir, c.Env, c.EnvFrom}
	return work.hash()
}

// workVersion is everything in a pod that tells two versions of a container's work apart. A
// later pass of the webhook finds the same version, because the shim's own arguments are no
// part of it. A new agent must not change the hash of a version, because all work would run
// again.
type workVersion struct {
	Workload   string                 `json:"workload,omitempty"`
	Image      string                 `json:"image"`
	Args       []string               `json:"args,omitempty"`
	Platforms  api.Platforms          `json:"platforms,omitempty"`
	WorkingDir string                 `json:"workingDir,omitempty"`
	Env        []corev1.EnvVar        `json:"env,omitempty"`
	EnvFrom    []corev1.EnvFromSource `json:"envFrom,omitempty"`
}

// versionBytes is the number of bytes that a key takes of the SHA-256. Two versions of one
// container practically never share 64 bits.
const versionBytes = 8

// hash returns the key of the version.
func (v workVersion) hash() string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", v, err)) // strings and numbers always have a JSON text
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:versionBytes])
}

// warnOfFiles warns of a volume of the pod, or of its node. The container of a once claim
// writes such a volume, and a later container mounts it. Only the pod that runs the
// container has these files.
func warnOfFiles(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	places := p.places()
	if _, once := p.Request.Once(); !once || len(places) != 1 || places[0].list != initContainers {
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
