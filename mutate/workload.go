// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
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
		return admission.Errored(http.StatusBadRequest, err)
	}
	outcome := Outcome{
		Resource: r.Resource.Resource, Namespace: r.Namespace, Name: r.Name,
		Changed: len(patch) > 0, DryRun: r.DryRun != nil && *r.DryRun,
	}
	var warnings []string
	for _, refusal := range refusals {
		warnings = append(warnings, refusal.Error())
	}
	if len(refusals) > 0 {
		outcome.Reasons, outcome.Message = reasonsOf(refusals), refusals.Error()
	}
	h.observe(outcome)
	return admission.Patched("", patch...).WithWarnings(warnings...)
}
