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

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
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
	subject, err := h.subject(ctx, r, pod)
	if err == nil {
		operations, warnings, failed := mutate.Inject(ctx, subject, h.AgentImage, h.Images)
		if failed == nil {
			outcome.Changed = len(operations) > 0
			if len(warnings) > 0 {
				outcome.Reasons, outcome.Message = reason.Of(warnings), warnings.Error()
			}
			h.observe(outcome)
			return admission.Patched("", operations...).WithWarnings(warnings.Lines()...)
		}
		err = failed
	}
	switch {
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
	if len(warnings) > 0 {
		outcome := outcomeOf(r, "pods", r.Name)
		outcome.Changed, outcome.Reasons, outcome.Message = true, reason.Of(warnings), warnings.Error()
		h.observe(outcome)
	}
	return admission.Patched("", operations...).WithWarnings(warnings.Lines()...)
}

// subject gathers the facts about a pod. The function reads no owner if the pod has neither a claim
// nor a barrier. The function also reads no owner if the reference to the pod's controller is
// malformed, or if mistakes hide what the pod claims. The function mutate.Inject reports malformed
// pods. The error is [load.ErrOverloaded].
func (h podHandler) subject(ctx context.Context, r admission.Request, pod *corev1.Pod) (mutate.Subject, error) {
	s := mutate.Subject{Raw: r.Object.Raw, Pod: pod, Namespace: r.Namespace, Kubernetes: h.kubernetes()}
	if mutate.HasHugeAnnotations(pod) {
		return s, nil // Inject refuses the pod
	}
	request, err := api.Parse(pod.Annotations)
	mistakes, mistaken := errors.AsType[api.Mistakes](err)
	if mistaken {
		request, _ = mistakes.Rest(pod.Annotations)
	}
	if !request.Injects() {
		return s, nil
	}
	if h.Limits != nil && !mistaken {
		if s.Limits, err = h.Limits.LimitRanges(ctx, r.Namespace); err != nil {
			// This error refuses no pod. LimitRanges only shape the agent's resources, and
			// the API server refuses a pod that does not fit.
			h.logger().Warn("read limit ranges", "namespace", r.Namespace, "error", err)
		}
	}
	if s.Runs, s.Unknown, err = h.runs(ctx, r.Namespace, request.After); err != nil || len(s.Unknown) > 0 {
		return s, err
	}
	controller := metav1.GetControllerOf(pod)
	if controller == nil {
		if origin, restored := feature.RestoredOrigin(pod, request); restored {
			s.Origin = origin
			return s, nil
		}
		s.Workload = api.Workload{Kind: "Pod", Name: pod.Name}
		return s, nil
	}
	if s.Workload = podspec.WorkloadOf(controller); len(mutate.JudgeOrigin(pod, s.Workload)) > 0 || !request.Claims() && request.Barrier.Size == 0 {
		// The function mutate.Inject refuses a pod with an invalid owner. A pod with neither a
		// claim nor a barrier needs no facts about its owner.
		return s, nil
	}
	s.Origin, err = h.Owners.Origin(ctx, r.Namespace, pod)
	if errors.Is(err, load.ErrOverloaded) {
		return s, err
	}
	if err != nil {
		s.Unknown.Add(reason.WorkloadUnknown, "%s %q: %v", controller.Kind, controller.Name, err)
	}
	return s, nil
}

// runs returns a map with the UID of each Job whose shards a condition names. The keys of the map
// are the names of the Jobs. The function skips a condition that already has a UID as its Key. The
// refusals name a Job that cannot be read.
func (h podHandler) runs(ctx context.Context, namespace string, conditions []api.Condition) (runs map[string]string, unknown reason.Refusals, err error) {
	runs = map[string]string{}
	for _, c := range conditions {
		job := c.Job()
		if job == "" || c.Key != "" {
			continue
		}
		run, err := h.Owners.JobUID(ctx, namespace, job)
		if errors.Is(err, load.ErrOverloaded) {
			return nil, nil, err
		}
		if err != nil {
			unknown.Add(reason.WorkloadUnknown, "Job %q of %s: %v", job, api.AfterAnnotation, err)
			return nil, unknown, nil
		}
		runs[job] = run
	}
	return runs, nil, nil
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
