// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// Run returns the run of a pod: the UID of the Job that controls the pod. If no Job does, the
// result is empty. An owner of the kind Job in another API group does not count.
func Run(pod metav1.Object) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Job" || !strings.HasPrefix(owner.APIVersion, "batch/") || !api.IsRun(string(owner.UID)) {
		return ""
	}
	return string(owner.UID)
}
