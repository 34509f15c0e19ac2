// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
)

// NewWorkloadHandler makes the handler for the creation and update of
// Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs.
func NewWorkloadHandler(o Options) admission.Handler { return workloadHandler{o} }

type workloadHandler struct{ Options }

// Handle implements [admission.Handler]. It never refuses: what is wrong is a
// warning here and an error at the pods.
func (h workloadHandler) Handle(_ context.Context, r admission.Request) admission.Response {
	if r.SubResource != "" || (r.Operation != admissionv1.Create && r.Operation != admissionv1.Update) {
		return admission.Allowed("")
	}
	patch, refusals, err := Carry(h.kubernetes(), r.Kind.Kind, r.Object.Raw, r.OldObject.Raw)
	if err != nil {
		return malformed(err)
	}
	outcome := Outcome{
		Resource: resourceOf(r), Namespace: api.Brief(r.Namespace, mostName), Name: api.Brief(r.Name, mostName),
		Changed: len(patch) > 0, DryRun: r.DryRun != nil && *r.DryRun,
	}
	if len(refusals) > 0 {
		outcome.Reasons, outcome.Message = reasonsOf(refusals), refusals.Error()
	}
	h.observe(outcome)
	return admission.Patched("", patch...).WithWarnings(refusals.told()...)
}

// workloadResources are those that the webhook is configured for.
var workloadResources = []string{"cronjobs", "daemonsets", "deployments", "jobs", "replicasets", "statefulsets"}

// otherResource stands for every resource that the webhook is not called for.
const otherResource = "other"

// resourceOf names the resource of a request. The name becomes a label of a
// metric, which is kept for ever; a caller that is no API server may send any.
func resourceOf(r admission.Request) string {
	if slices.Contains(workloadResources, r.Resource.Resource) {
		return r.Resource.Resource
	}
	return otherResource
}
