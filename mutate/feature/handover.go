// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeHandovers refuses [api.YieldAfterAnnotation], [api.PreferAnnotation] and [api.FailsafeAnnotation] in a
// pod with which they would have no effect. The parser has refused every claim but one singleton, or for the
// first two one lock, already.
func judgeHandovers(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	kind := p.Workload.Kind
	if p.Request.YieldAfter > 0 {
		// A template has no name yet, and so no slot whose name tells ([api.HasNextLease]).
		if _, own := p.Request.Within(api.ScopeWorkload); own && !p.Workload.Rolls() {
			refusals.Add(reason.NoHandover, "%s is set, and a singleton of a %s has no Lease in which a standby could answer", api.YieldAfterAnnotation, kind)
		}
		probed := slices.ContainsFunc(p.probes, func(its carriedProbe) bool { return its.kind.name == api.ReadinessProbe })
		if !probed {
			refusals.Add(reason.NoReadinessProbe, "%s is set, and no gated container has a readiness probe", api.YieldAfterAnnotation)
		}
	}
	refusals = append(refusals, judgeFailsafe(p)...)
	switch {
	case p.Request.Prefer == (api.Preference{}):
	case !p.Workload.Rolls():
		refusals.Add(reason.NoHandover, "%s is set, and the pods of a %s take no turns", api.PreferAnnotation, kind)
	case len(p.inits) > 0:
		refusals.Add(reason.NoHandover, "%s is set, and no standby is Ready while its init container %q waits", api.PreferAnnotation, p.Spec.InitContainers[p.inits[0]].Name)
	case p.hindered != (corev1.ContainerPort{}):
		refusals.Add(reason.NoHandover, "%s is set, and no standby is Ready because of port %d/%s", api.PreferAnnotation, p.hindered.ContainerPort, p.hindered.Protocol)
	}
	return refusals
}

// judgeFailsafe refuses [api.FailsafeAnnotation] in a pod whose application would not start again in an outage,
// and in a pod that would never have supporters although it needs them.
func judgeFailsafe(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	key, its := api.FailsafeAnnotation, p.Request.Failsafe
	if its == (api.Failsafe{}) {
		return nil
	}
	if len(p.inits) > 0 {
		refusals.Add(reason.NoFailsafe, "%s is set, and init container %q is gated", key, p.Spec.InitContainers[p.inits[0]].Name)
	}
	switch {
	case its.Alone:
	case !p.Workload.Rolls():
		refusals.Add(reason.NoFailsafe, "%s is set without alone, and a singleton of a %s has no Lease in which a standby could offer its support", key, p.Workload.Kind)
	case p.Spec.HostNetwork:
		refusals.Add(reason.NoFailsafe, "%s is set without alone, and on its node's network the agent has no port at which the holder could ask", key)
	}
	return refusals
}

// labelsTopology is the minor version of Kubernetes since which a pod has the labels of its node's zone
// and region (PodTopologyLabelsAdmission).
const labelsTopology = 35

// These are the labels that controllers give to their pods, beside those of the template. All pods of a
// revision have one value of the labels in ofRevision.
var (
	ofStatefulSet = []string{appsv1.PodIndexLabel, appsv1.StatefulSetPodNameLabel}
	ofRevision    = []string{appsv1.DefaultDeploymentUniqueLabelKey, appsv1.ControllerRevisionHashLabelKey, "pod-template-generation", "rollouts-pod-template-hash"}
)

// warnOfPreference warns of a preference by which either all pods of the workload are preferred, or none. A
// webhook of another project may add the label, so the annotation is not refused.
func warnOfPreference(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	key, kind := p.Request.Prefer.Key, p.Workload.Kind
	_, has := p.Labels[key]
	switch {
	case key == "", !p.Workload.Rolls():
	case slices.Contains(ofRevision, key):
		warnings.Add(reason.NobodyPreferred, "all pods of a template have the same label %s", key)
	case has && p.isTemplate():
		warnings.Add(reason.NobodyPreferred, "all pods of the template have the same label %s", key)
	case has, kind == "StatefulSet" && slices.Contains(ofStatefulSet, key):
	case key == corev1.LabelTopologyZone || key == corev1.LabelTopologyRegion:
		if p.Kubernetes > 0 && p.Kubernetes < labelsTopology {
			warnings.Add(reason.NobodyPreferred, "the cluster is 1.%d, and pods have the label %s since 1.%d", p.Kubernetes, key, labelsTopology)
		}
	default:
		warnings.Add(reason.NobodyPreferred, "neither the template nor Kubernetes gives a pod of a %s the label %s", kind, key)
	}
	return warnings
}
