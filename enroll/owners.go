// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// ownersOf returns the owners of the Lease of a slot. If the slot is at a barrier of the claimant's
// own Job, the Job owns the Lease. So after the deletion of the Job the garbage collector deletes
// the Lease, with the record that the barrier is open. Any other Lease has no owner, because the
// Lease must outlive the workload.
func ownersOf(slot string, claimant client.Object) []metav1.OwnerReference {
	run := podspec.Run(claimant)
	if run == "" || api.RunOf(slot) != run {
		return nil
	}
	owner := metav1.GetControllerOf(claimant)
	return []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: owner.Kind, Name: owner.Name, UID: owner.UID}}
}
