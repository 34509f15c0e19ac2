// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgePlatform refuses a pod for Windows, because the gate needs Linux.
func judgePlatform(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if (p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows) || p.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows) {
		refusals.Add(reason.Windows, "the pod asks for Windows")
	}
	return refusals
}
