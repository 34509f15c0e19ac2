// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// maxVersion bounds the bytes of an owner's version without the group. A version is a label of DNS.
	maxVersion = 63
	// maxUID bounds the bytes of an owner's UID. The UIDs of the API server have 36 bytes.
	maxUID = 64
)

// WorkloadOf returns the workload that an owner reference names. From a malformed version,
// WorkloadOf makes an empty group.
func WorkloadOf(owner *metav1.OwnerReference) api.Workload {
	version, _ := schema.ParseGroupVersion(owner.APIVersion)
	return api.Workload{Group: version.Group, Kind: owner.Kind, Name: owner.Name}
}

// Above returns the owner with whose pods the pods of an object share their slots; nil for none. That
// owner is the object's controller. A Job without a controller also belongs to the CronJob among its
// owners: many clients start a run by hand without claiming to be the CronJob's controller (kubectl 1.19
// to 1.27, earlier versions of k9s and Lens). Any other reference without "controller" counts for
// nothing, because such references mostly serve only the garbage collection.
func Above(kind string, object metav1.Object) *metav1.OwnerReference {
	if owner := metav1.GetControllerOf(object); owner != nil || kind != "Job" {
		return owner
	}
	for _, owner := range object.GetOwnerReferences() {
		if WorkloadOf(&owner).Group == "batch" && owner.Kind == "CronJob" {
			return &owner
		}
	}
	return nil
}

// IsValidOwner reports whether an object of the API server can be the owner that a reference names.
// The API server bounds no text of an owner reference. So callers need this check before they keep
// or send a text of a reference.
func IsValidOwner(owner *metav1.OwnerReference) bool {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && len(version.Version) <= maxVersion && len(owner.UID) <= maxUID && WorkloadOf(owner).Valid()
}
