// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// apart warns of standbys that cannot start beside the holder, because all pods mount the same
// PersistentVolumeClaim. Usually the webhook does not know the access modes of a claim, because the
// workload does not show them. Volumes that are mounted read-only cause no warning: their claims are
// made to be shared. Pods of a Job cause no warning either: they wait for each other anyway.
func (w *workload) apart(kind string, request api.Request, modes map[string][]corev1.PersistentVolumeAccessMode) (warnings reason.Refusals) {
	if !w.Spec.several(kind) || !hasStandbys(request) {
		return nil
	}
	pinned := together(&w.Spec.Template)
	done, own := map[string]bool{}, map[string]bool{}
	for _, t := range w.Spec.VolumeClaimTemplates {
		own[t.Name] = true
	}
	for _, v := range w.Spec.Template.Spec.Volumes {
		if own[v.Name] || v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ReadOnly || done[v.PersistentVolumeClaim.ClaimName] {
			continue
		}
		claim := v.PersistentVolumeClaim.ClaimName
		done[claim] = true
		is, known := modes[claim]
		switch {
		case slices.Contains(is, corev1.ReadWriteOncePod):
			warnings.Add(reason.VolumeOnOneNode, "PersistentVolumeClaim %q is ReadWriteOncePod, so only one of the pods can run, even as a standby", claim)
		case slices.Contains(is, corev1.ReadWriteMany), slices.Contains(is, corev1.ReadOnlyMany), pinned:
		case known:
			warnings.Add(reason.VolumeOnOneNode, "PersistentVolumeClaim %q is ReadWriteOnce, and the pods may get different nodes", claim)
		default:
			warnings.Add(reason.VolumeOnOneNode, "all pods mount PersistentVolumeClaim %q, and may get different nodes. If the claim is ReadWriteOnce, only the pods on one node can start", claim)
		}
	}
	return warnings
}

// together reports whether the scheduler places all pods of a template on the same node.
func together(template *corev1.PodTemplateSpec) bool {
	spec := &template.Spec
	if spec.NodeName != "" || spec.NodeSelector[corev1.LabelHostname] != "" {
		return true
	}
	if spec.Affinity == nil {
		return false
	}
	if to := spec.Affinity.NodeAffinity; to != nil && to.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms := to.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		if len(terms) == 1 && slices.ContainsFunc(slices.Concat(terms[0].MatchExpressions, terms[0].MatchFields), namesNode) {
			return true
		}
	}
	to := spec.Affinity.PodAffinity
	return to != nil && slices.ContainsFunc(to.RequiredDuringSchedulingIgnoredDuringExecution, func(term corev1.PodAffinityTerm) bool {
		selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
		elsewhere := len(term.Namespaces) > 0 || term.NamespaceSelector != nil || len(term.MatchLabelKeys)+len(term.MismatchLabelKeys) > 0
		return err == nil && !elsewhere && term.TopologyKey == corev1.LabelHostname && selector.Matches(labels.Set(template.Labels))
	})
}

// namesNode reports whether a requirement admits one node alone.
func namesNode(r corev1.NodeSelectorRequirement) bool {
	return slices.Contains([]string{corev1.LabelHostname, metav1.ObjectNameField}, r.Key) && r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1
}
