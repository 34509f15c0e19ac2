// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// NewPodHandler returns the handler for the creation and update of pods.
func NewPodHandler(o Options) admission.Handler { return podHandler{o} }

type podHandler struct{ Options }

// Handle implements [admission.Handler].
func (h podHandler) Handle(ctx context.Context, r admission.Request) admission.Response {
	switch {
	case r.SubResource != "":
		return admission.Allowed("")
	case r.Operation == admissionv1.Update:
		return h.keep(r)
	case r.Operation == admissionv1.Create:
		return h.inject(ctx, r)
	}
	return admission.Allowed("")
}

// inject handles the creation of a pod.
func (h podHandler) inject(ctx context.Context, r admission.Request) admission.Response {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Timeout, DefaultTimeout))
	defer cancel()
	pod := new(corev1.Pod)
	if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
		return malformed(mutate.Malformed(err))
	}
	outcome := outcomeOf(r, "pods", cmp.Or(pod.Name, pod.GenerateName))
	outcome.Owner = ownerOf(pod)
	operations, warnings, err := mutate.Inject(ctx, mutate.Subject{
		Raw: r.Object.Raw, Pod: pod, Namespace: r.Namespace, Owners: h.Owners, Limits: h.limits(ctx, r.Namespace), Kubernetes: h.kubernetes(),
	}, h.AgentImage, h.Images)
	switch {
	case err == nil:
		return h.admitted(outcome, operations, warnings)
	case errors.Is(err, load.ErrOverloaded):
		return admission.Errored(http.StatusTooManyRequests, err)
	case errors.Is(err, mutate.ErrMalformed):
		return malformed(err)
	}
	outcome.Denied, outcome.Reasons, outcome.Message = true, reason.Of(err), err.Error()
	h.observe(outcome)
	return admission.Denied(outcome.Message)
}

// keep handles the update of a pod. The webhook refuses an update only if the text of the old or
// the new pod does not decode.
func (h podHandler) keep(r admission.Request) admission.Response {
	operations, warnings, err := mutate.Keep(r.Object.Raw, r.OldObject.Raw)
	if err != nil {
		return malformed(err)
	}
	if len(operations) == 0 {
		return admission.Allowed("")
	}
	return h.admitted(outcomeOf(r, "pods", r.Name), operations, warnings)
}

// ownerOf returns a pod's controller. The result is nil without a controller, and if no
// object can be the controller.
func ownerOf(pod *corev1.Pod) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || !podspec.IsValidOwner(owner) {
		return nil
	}
	return owner
}
