// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// betaOS is the old label of nodes, which kubelets still set.
const betaOS = "beta.kubernetes.io/os"

// judgePlatform refuses a pod for Windows, because the gate needs Linux. The nodeSelector of a
// RuntimeClass counts, because the API server merges it into the pod's before it calls webhooks. A
// toleration does not count: it only allows a Windows node.
func judgePlatform(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if how := windows(&p.Spec); how != "" {
		refusals.Add(reason.Windows, "the pod asks for Windows by its %s", how)
	}
	return refusals
}

// windows returns the field by which a pod asks for Windows; empty for a pod that may run on Linux.
func windows(spec *corev1.PodSpec) string {
	switch {
	case spec.OS != nil:
		if spec.OS.Name == corev1.Windows {
			return "os"
		}
		return ""
	case selectsWindows(spec.NodeSelector):
		return "nodeSelector"
	case spec.Affinity != nil && excludesLinux(spec.Affinity.NodeAffinity):
		return "nodeAffinity"
	case slices.ContainsFunc([]string{corev1.LabelOSStable, betaOS}, func(key string) bool { return spec.NodeSelector[key] == string(corev1.Linux) }):
		return "" // on Linux the kubelet ignores windowsOptions
	case hasWindowsOptions(spec):
		return "windowsOptions"
	}
	return ""
}

func selectsWindows(labels map[string]string) bool {
	_, build := labels[corev1.LabelWindowsBuild]
	return build || labels[corev1.LabelOSStable] == string(corev1.Windows) || labels[betaOS] == string(corev1.Windows)
}

// excludesLinux reports whether none of the required terms, of which one is enough, allows a Linux
// node.
func excludesLinux(a *corev1.NodeAffinity) bool {
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return len(terms) > 0 && !slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool {
		return !slices.ContainsFunc(term.MatchExpressions, needsWindows)
	})
}

func needsWindows(r corev1.NodeSelectorRequirement) bool {
	switch {
	case r.Key == corev1.LabelWindowsBuild:
		return r.Operator == corev1.NodeSelectorOpIn || r.Operator == corev1.NodeSelectorOpExists
	case r.Key != corev1.LabelOSStable && r.Key != betaOS:
		return false
	}
	linux := slices.Contains(r.Values, string(corev1.Linux))
	return r.Operator == corev1.NodeSelectorOpIn && !linux || r.Operator == corev1.NodeSelectorOpNotIn && linux
}

func hasWindowsOptions(spec *corev1.PodSpec) bool {
	if of := spec.SecurityContext; of != nil && of.WindowsOptions != nil {
		return true
	}
	has := func(c corev1.Container) bool {
		return c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil
	}
	return slices.ContainsFunc(spec.Containers, has) || slices.ContainsFunc(spec.InitContainers, has)
}
