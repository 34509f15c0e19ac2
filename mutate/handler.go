// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
)

// defaultTimeout bounds the handling of one pod: 2.5 s for images and as much
// again for two reads of owners, within the 10 s that the API server waits.
const defaultTimeout = 5 * time.Second

// Owners knows what pods belong to.
type Owners interface {
	// Workload follows the controllers of a pod (which has one) to the
	// top-most: ReplicaSet to Deployment, Job to CronJob, and so on.
	//
	// It also returns the template that this very pod was made from, or nil
	// where that is not certain. A template of another revision will not do: a
	// container that is missing from it would run ungated.
	Workload(ctx context.Context, namespace string, pod *corev1.Pod) (api.Workload, *corev1.PodSpec, error)
}

// Limits knows the LimitRanges of namespaces, from memory.
type Limits interface {
	LimitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error)
}

// Outcome is what became of one request, for metrics and Events.
type Outcome struct {
	// Resource is "pods", or the workload's, as "deployments".
	Resource  string
	Namespace string
	// Name is the object's, or its generateName.
	Name string
	// Owner is the controller of a pod, if any: where people look for Events.
	Owner *metav1.OwnerReference
	// Changed: there is a patch.
	Changed bool
	// Denied: the object does not get in. A workload's Reasons are warnings.
	Denied bool
	// Reasons and Message are empty if nothing speaks against the object.
	Reasons []Reason
	Message string
	DryRun  bool
}

// Options configure both handlers. AgentImage, Images and Owners are needed
// for pods, nothing for workloads.
type Options struct {
	AgentImage string
	Images     Images
	Owners     Owners
	// Limits may be nil: injected resources then ignore LimitRanges.
	Limits Limits
	// Kubernetes is the cluster's minor version of Kubernetes 1, or zero while
	// it is not known; nil is never known. It must not block.
	Kubernetes func() int
	// Timeout bounds one request; zero means 5 s.
	Timeout time.Duration
	// Observe, if set, is told every outcome. It must not block.
	Observe func(Outcome)
	// Log, if set, gets a line for every refusal.
	Log *slog.Logger
}

func (o Options) observe(outcome Outcome) {
	if o.Log != nil && len(outcome.Reasons) > 0 {
		o.Log.Info("spoke against an object", "resource", outcome.Resource, "namespace", outcome.Namespace,
			"name", outcome.Name, "reasons", outcome.Reasons, "denied", outcome.Denied,
			"message", outcome.Message, "dryRun", outcome.DryRun)
	}
	if o.Observe != nil {
		o.Observe(outcome)
	}
}

// NewPodHandler makes the handler for the creation of pods, and for their updates.
func NewPodHandler(o Options) admission.Handler { return podHandler{o} }

type podHandler struct{ Options }

// Handle implements [admission.Handler].
func (h podHandler) Handle(ctx context.Context, r admission.Request) admission.Response {
	switch {
	case r.Operation == admissionv1.Update && r.SubResource == "":
		return h.keep(r)
	case r.Operation != admissionv1.Create || r.SubResource != "":
		return admission.Allowed("")
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Timeout, defaultTimeout))
	defer cancel()
	pod := new(corev1.Pod)
	if err := json.Unmarshal(r.Object.Raw, pod); err != nil {
		return malformed(fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	outcome := Outcome{
		Resource: "pods", Namespace: api.Brief(r.Namespace, mostName), Name: api.Brief(cmp.Or(pod.Name, pod.GenerateName), mostName),
		Owner: ownerOf(pod), DryRun: r.DryRun != nil && *r.DryRun,
	}
	subject, err := h.subject(ctx, r, pod)
	if err == nil {
		patched, failed := Inject(ctx, subject, h.AgentImage, h.Images)
		if failed == nil {
			outcome.Changed = len(patched) > 0
			h.observe(outcome)
			return admission.Patched("", patched...).WithWarnings(worries(pod).told()...)
		}
		err = failed
	}
	if errors.Is(err, ErrMalformed) {
		return malformed(err)
	}
	outcome.Denied, outcome.Reasons, outcome.Message = true, reasonsOf(err), message(err)
	h.observe(outcome)
	return admission.Denied(outcome.Message)
}

// ownerOf is a pod's controller, if there can be such an object.
func ownerOf(pod *corev1.Pod) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || !groupOf(owner).Valid() {
		return nil
	}
	return owner
}

// keep handles an update, which is never refused here.
func (h podHandler) keep(r admission.Request) admission.Response {
	patch, warnings, err := Keep(r.Object.Raw, r.OldObject.Raw)
	if err != nil {
		return malformed(err)
	}
	if len(warnings) > 0 {
		h.observe(Outcome{
			Resource: "pods", Namespace: api.Brief(r.Namespace, mostName), Name: api.Brief(r.Name, mostName), Changed: true,
			Reasons: reasonsOf(warnings), Message: warnings.Error(), DryRun: r.DryRun != nil && *r.DryRun,
		})
	}
	return admission.Patched("", patch...).WithWarnings(warnings.told()...)
}

// worries are warnings about a pod that gets in.
func worries(pod *corev1.Pod) Refusals {
	request, err := api.Parse(pod.Annotations)
	if err != nil {
		return nil //nolint:nilerr // then it did not get in
	}
	return judgeToken(&pod.Spec, request)
}

// subject gathers what is to be known about a pod. Nothing is asked about a
// pod that claims nothing; its mistakes come out of Inject.
func (h podHandler) subject(ctx context.Context, r admission.Request, pod *corev1.Pod) (Subject, error) {
	s := Subject{Raw: r.Object.Raw, Namespace: r.Namespace, Kubernetes: h.kubernetes(), pod: pod}
	request, err := api.Parse(pod.Annotations)
	if err != nil || !request.Claims() {
		return s, nil //nolint:nilerr // Inject finds the same mistakes.
	}
	if h.Limits != nil {
		if s.Limits, err = h.Limits.LimitRanges(ctx, r.Namespace); err != nil {
			// They only shape resources; the range itself refuses what does not fit.
			h.logger().Warn("read limit ranges", "namespace", r.Namespace, "error", err)
		}
	}
	controller := metav1.GetControllerOf(pod)
	if controller == nil {
		s.Workload = api.Workload{Kind: "Pod", Name: pod.Name}
		return s, nil
	}
	if s.Workload = groupOf(controller); len(judgeOrigin(pod, s.Workload)) > 0 {
		return s, nil // Inject says so, and nobody has to be asked.
	}
	s.Workload, s.Template, err = h.Owners.Workload(ctx, r.Namespace, pod)
	if err != nil {
		var refusals Refusals
		refusals.add(WorkloadUnknown, "%s %q: %v", controller.Kind, controller.Name, err)
		return s, refusals
	}
	return s, nil
}

// malformed answers what is no object of its kind. A decoder's error quotes
// what it could not read.
func malformed(err error) admission.Response {
	return admission.Errored(http.StatusBadRequest, errors.New(api.Brief(err.Error(), mostCause)))
}

func (o Options) kubernetes() int {
	if o.Kubernetes == nil {
		return 0
	}
	return o.Kubernetes()
}

func (o Options) logger() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// reasonsOf names what speaks against an object, each once.
func reasonsOf(err error) []Reason {
	refusals, ok := errors.AsType[Refusals](err)
	if !ok {
		return []Reason{BadAnnotation}
	}
	var reasons []Reason
	for _, r := range refusals {
		if !slices.Contains(reasons, r.Reason) {
			reasons = append(reasons, r.Reason)
		}
	}
	return reasons
}

// message is what people read: each "no" begins with its reason.
func message(err error) string {
	if mistakes, ok := errors.AsType[api.Mistakes](err); ok {
		return string(BadAnnotation) + ": " + mistakes.Error()
	}
	return err.Error()
}
