// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// ownersOf returns the owners of the Lease of a slot. The Lease of a barrier belongs to the
// claimant's Job. So the garbage collector deletes that Lease after the Job, and with the Lease the
// record that the barrier is open. Any other Lease has no owner, because such a Lease outlives
// the workload.
func ownersOf(slot string, claimant client.Object) []metav1.OwnerReference {
	run := podspec.Run(claimant)
	if run == "" || api.RunOf(slot) != run {
		return nil
	}
	owner := metav1.GetControllerOf(claimant)
	return []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: owner.Kind, Name: owner.Name, UID: owner.UID}}
}
