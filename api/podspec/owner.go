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

// IsValidOwner reports whether an object of the API server can be the owner that a reference names.
// The API server bounds no text of an owner reference. So callers need this check before they keep
// or send a text of a reference.
func IsValidOwner(owner *metav1.OwnerReference) bool {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && len(version.Version) <= maxVersion && len(owner.UID) <= maxUID && WorkloadOf(owner).Valid()
}
