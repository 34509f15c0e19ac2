// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeOnce refuses a once claim that gates several containers, or a main container of an Indexed
// Job. A claim of a container that the kubelet starts again after its success is refused, too. A
// claim without a name needs a revision or a Job of the pod.
func judgeOnce(p *Pod) reason.Refusals {
	places := p.places()
	if _, once := p.Request.Once(); !once || len(places) == 0 {
		return nil
	}
	refusals := judgeRevision(p)
	if len(places) > 1 {
		refusals.Add(reason.OnceContainers, "%s is for one container, and the pod gates %d", api.OnceAnnotation, len(places))
		return refusals
	}
	at := places[0]
	c := p.container(at)
	switch {
	case at.list == mainContainers && p.indexed():
		refusals.Add(reason.OnceIndexed, "%s gates container %q of an Indexed Job", api.OnceAnnotation, c.Name)
	case at.list == mainContainers && p.restarts(c) == corev1.ContainerRestartPolicyAlways:
		refusals.Add(reason.OnceRestarts, "%s is set, and the kubelet always restarts container %q", api.OnceAnnotation, c.Name)
	case slices.ContainsFunc(c.RestartPolicyRules, restartsAfterSuccess):
		refusals.Add(reason.OnceRestarts, "%s is set, and a restart rule of container %q matches exit code 0", api.OnceAnnotation, c.Name)
	}
	return refusals
}

// indexed reports whether the pod belongs to an Indexed Job. The template of any other Job may have
// the annotation with an index, too, because a person copied the template from a pod.
func (f Facts) indexed() bool {
	if f.isTemplate() {
		return f.Document.Get(append(slices.Clone(f.Path[:len(f.Path)-1]), "completionMode")...) == string(batchv1.IndexedCompletion)
	}
	_, index := f.Annotations[batchv1.JobCompletionIndexAnnotation]
	return index && (f.Run.UID == "" || f.Run.Indexed)
}

// onceKey returns the key of the pod's once claim; empty without such a claim. If the claim has no
// name, the key of a Job's pod is the Job's UID. For any other pod, the key of an unnamed claim
// comes from the pod's revision. This key consists of the revision's hash and the beginning of the
// workload's UID. The result is empty if the revision is unknown. For a preview, the key of an
// unnamed claim is a placeholder.
func (p *Pod) onceKey() string {
	claim, once := p.Request.Once()
	run := podspec.Run(p.Pod)
	switch {
	case !once || claim.Name != "":
		return claim.Key
	case p.Preview:
		return "REVISION"
	case run != "":
		return run
	case !p.Revision.Valid():
		return ""
	}
	hash, uid := p.Revision.Hash, p.Revision.Workload
	if p.Workload.Kind == "StatefulSet" {
		// For a StatefulSet, Revision.Hash is the whole name of a ControllerRevision, which ends in
		// the hash.
		hash = hash[strings.LastIndexByte(hash, '-')+1:]
	}
	if key := hash + "." + uid[:min(len(uid), uidLength)]; api.IsKey(key) {
		return key
	}
	return ""
}

// uidLength is the number of characters of a UID in a key. Eight hexadecimal digits are 32 random
// bits. Two successive workloads of one name practically never have UIDs that begin with the same
// bits.
const uidLength = 8

// judgeRevision refuses a once claim without a name in a pod that has neither a revision nor a Job.
func judgeRevision(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	claim, once := p.Request.Once()
	switch {
	case !once || claim.Name != "":
	case p.isTemplate() && !hasKey(p.Workload.Owner()):
		refusals.Add(reason.NoRevision, "the pods of a %s have no revision", p.Workload.Kind)
	case !p.isTemplate() && p.onceKey() == "":
		refusals.Add(reason.NoRevision, "no controller has numbered the template of the pod")
	}
	return refusals
}

// hasKey reports whether pods of the kind can have a once claim without a name: by their revision, or by their Job.
func hasKey(of api.Owner) bool { return of.Rolls || of.Runs }

// warnOfFiles warns if a later container mounts a volume that the container of a once claim writes.
// The warning concerns only volumes of the pod or of its node. The later container runs in every
// pod, but the files exist only in the pod that does the work, or on that pod's node.
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
