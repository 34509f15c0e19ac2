// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate"
)

// NewWorkloadHandler returns the handler for the creation and update of Deployments,
// StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs.
func NewWorkloadHandler(o Options) admission.Handler { return workloadHandler{o} }

// imagesTime bounds the look-ups for a workload. A person waits for the answer, and the look-ups for
// the pods follow anyway.
const imagesTime = 2 * time.Second

type workloadHandler struct{ Options }

// Handle implements [admission.Handler], and never refuses a well-formed workload. A
// problem causes a warning about the workload, and later a refusal of its pods.
func (h workloadHandler) Handle(ctx context.Context, r admission.Request) admission.Response {
	if r.SubResource != "" || (r.Operation != admissionv1.Create && r.Operation != admissionv1.Update) {
		return admission.Allowed("")
	}
	ctx, cancel := context.WithTimeout(ctx, imagesTime)
	defer cancel()
	operations, warnings, err := mutate.Carry(ctx, mutate.Workload{
		Kind: r.Kind.Kind, Namespace: r.Namespace, Raw: r.Object.Raw, Old: r.OldObject.Raw, Kubernetes: h.kubernetes(), Images: h.Images,
	})
	if err != nil {
		return malformed(err)
	}
	if r.Operation == admissionv1.Create {
		warnings = append(warnings, mutate.Apart(r.Kind.Kind, r.Object.Raw, h.cronJobs(ctx, r.Namespace))...)
	}
	return h.admitted(outcomeOf(r, resourceOf(r), r.Name), operations, warnings)
}

// workloadResources are the resources of the webhook's configuration.
var workloadResources = []string{"cronjobs", "daemonsets", "deployments", "jobs", "replicasets", "statefulsets"}

// otherResource stands for every resource outside of the webhook's configuration.
const otherResource = "other"

// resourceOf returns the resource of a request, or otherResource. The result becomes the value of a
// metric's label, and the webhook keeps each value for ever. A caller other than the API server may
// send any name, so resourceOf returns no unknown name.
func resourceOf(r admission.Request) string {
	if slices.Contains(workloadResources, r.Resource.Resource) {
		return r.Resource.Resource
	}
	return otherResource
}
