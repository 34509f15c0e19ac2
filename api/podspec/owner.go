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

// Above returns the owner with whose pods the pods of an object share their slots; nil for none. The
// object is of one of Kubernetes' own kinds.
//
// A controller makes a ReplicaSet, a ReplicationController or a Job for each version or run of what a
// person calls the workload, so that controller is the owner. It may be of any kind, such as a
// DeploymentConfig of OpenShift. A Job without a controller also belongs to the CronJob among its
// owners: many clients start a run by hand without claiming to be the CronJob's controller (kubectl 1.19
// to 1.27, earlier versions of k9s and Lens). Any other reference without "controller" counts for
// nothing, because such references mostly serve only the garbage collection.
//
// A Deployment belongs to nobody, even if an operator made it: an operator can make several, which all
// run. The exception is the Deployment of a Knative Revision, because each version has another one.
func Above(kind string, object metav1.Object) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(object)
	switch of := api.BuiltinOwner(kind); {
	case kind == "Deployment":
		return ofKnative(owner, object.GetLabels())
	case !of.PerVersion:
		return nil
	case owner == nil:
		for _, other := range object.GetOwnerReferences() {
			if above := WorkloadOf(&other); of.Runs && above.Group == of.Group && above.Owner().Below == kind {
				return &other
			}
		}
	}
	return owner
}

// knative is the API group of Knative's workloads.
const knative = "serving.knative.dev"

// aboveRevision has the kinds above a Revision of Knative by the labels that name them, the top-most first.
// Knative copies the labels from the Revision to its Deployment.
var aboveRevision = []struct{ kind, label string }{{"Service", knative + "/service"}, {"Configuration", knative + "/configuration"}}

// ofKnative returns a reference, without a UID, to the Service or Configuration of Knative whose Revision
// controls a Deployment with these labels; nil for any other Deployment. A label of a pod would not do: its
// author writes it. But who may make a Deployment may make pods, and can name a Service in their owner
// references, too.
func ofKnative(controller *metav1.OwnerReference, labels map[string]string) *metav1.OwnerReference {
	if controller == nil || controller.Kind != "Revision" || WorkloadOf(controller).Group != knative {
		return nil
	}
	for _, above := range aboveRevision {
		owner := metav1.OwnerReference{APIVersion: controller.APIVersion, Kind: above.kind, Name: labels[above.label], Controller: new(true)}
		if IsValidOwner(&owner) {
			return &owner
		}
	}
	return nil
}

// KeepAbove copies to the metadata in a cache what [Above] reads of a Deployment, which is nothing for most.
func KeepAbove(kept *metav1.ObjectMeta, deployment metav1.Object) {
	above := Above("Deployment", deployment)
	if above == nil {
		return
	}
	kept.OwnerReferences = []metav1.OwnerReference{{APIVersion: above.APIVersion, Kind: "Revision", Controller: new(true)}}
	for _, one := range aboveRevision {
		if one.kind == above.Kind {
			kept.Labels = map[string]string{one.label: above.Name}
		}
	}
}

// IsValidOwner reports whether an object of the API server can be the owner that a reference names.
// The API server bounds no text of an owner reference. So callers need this check before they keep
// or send a text of a reference.
func IsValidOwner(owner *metav1.OwnerReference) bool {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	return err == nil && len(version.Version) <= maxVersion && len(owner.UID) <= maxUID && WorkloadOf(owner).Valid()
}
