// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// DefaultTimeout bounds the handling of one pod. The API server waits 10 s for the webhook, so two
// seconds are left for the connection and for the queue of calls.
const DefaultTimeout = 8 * time.Second

// Limits returns the LimitRanges of a namespace without a request to the API server.
type Limits interface {
	LimitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error)
}

// Outcome is the result of one request, for metrics and Events.
type Outcome struct {
	// Resource is "pods", or the resource of the workload, such as "deployments".
	Resource  string
	Namespace string
	// Name is the object's name, or its generateName.
	Name string
	// Owner is the controller of a new pod; nil if the pod has no controller. The Event about a refused
	// or warned pod goes to this controller, or to the workload above this controller.
	Owner *metav1.OwnerReference
	// Changed is true if the answer has a patch.
	Changed bool
	// Denied is true if the webhook refuses the object. If Denied is false, all Reasons are
	// warnings.
	Denied bool
	// Reasons and Message are empty if the webhook has no objection.
	Reasons []reason.Reason
	Message string
	DryRun  bool
}

// outcomeOf returns the outcome of a request before the webhook has judged the object.
func outcomeOf(r admission.Request, resource, name string) Outcome {
	return Outcome{
		Resource: resource, Namespace: api.Brief(r.Namespace, reason.MaxName), Name: api.Brief(name, reason.MaxName),
		DryRun: r.DryRun != nil && *r.DryRun,
	}
}

// Options configure the handler of pods and the handler of workloads. The handler of pods needs
// AgentImage, Images and Owners. The handler of workloads needs no field; without Images it does not
// warn of images that nobody can read.
type Options struct {
	AgentImage string
	Images     image.Images
	Owners     mutate.Owners
	// Limits may be nil: the resources of the agent then ignore LimitRanges.
	Limits Limits
	// CronJobs returns the names and the annotations of ours of a namespace's CronJobs, without a
	// request to the API server. With nil they are not known.
	CronJobs func(ctx context.Context, namespace string) ([]metav1.ObjectMeta, error)
	// Uncarried returns the workloads of a namespace that claim, and whose pod templates lack the claim. With
	// nil they are not known. Besides an error the result may have some of them.
	Uncarried func(ctx context.Context, namespace string) (Uncarried, error)
	// Kubernetes returns the cluster's minor version of Kubernetes 1, or zero while the
	// version is unknown. The function must not block. With nil the version stays unknown.
	Kubernetes func() int
	// Timeout bounds one request; zero means [DefaultTimeout].
	Timeout time.Duration
	// Observe, if set, gets every outcome, and must not block.
	Observe func(Outcome)
	// Log, if set, gets a line for every outcome with reasons.
	Log *slog.Logger
}

// observe logs each outcome that has reasons, and passes all outcomes to the function Observe.
func (o Options) observe(outcome Outcome) {
	if o.Log != nil && len(outcome.Reasons) > 0 {
		o.Log.Info("warned about or refused an object", "resource", outcome.Resource, "namespace", outcome.Namespace,
			"name", outcome.Name, "reasons", outcome.Reasons, "denied", outcome.Denied,
			"message", outcome.Message, "dryRun", outcome.DryRun)
	}
	if o.Observe != nil {
		o.Observe(outcome)
	}
}

// admitted observes an admitted object, and returns the answer.
func (o Options) admitted(outcome Outcome, operations []jsonpatch.Operation, warnings reason.Refusals) admission.Response {
	outcome.Changed = len(operations) > 0
	if len(warnings) > 0 {
		outcome.Reasons, outcome.Message = reason.Of(warnings), warnings.Error()
	}
	o.observe(outcome)
	return admission.Patched("", operations...).WithWarnings(warnings.Lines()...)
}

func (o Options) kubernetes() int {
	if o.Kubernetes == nil {
		return 0
	}
	return o.Kubernetes()
}

// limits returns a function that lists the LimitRanges of a namespace. An error refuses no pod: LimitRanges only
// shape the agent's resources, and the API server refuses a pod that does not fit.
func (o Options) limits(ctx context.Context, namespace string) func() []corev1.LimitRange {
	if o.Limits == nil {
		return nil
	}
	return func() []corev1.LimitRange {
		all, err := o.Limits.LimitRanges(ctx, namespace)
		if err != nil {
			o.logger().Warn("read limit ranges", "namespace", namespace, "error", err)
		}
		return all
	}
}

// cronJobs returns a function that lists the CronJobs of a namespace, or nil.
func (o Options) cronJobs(ctx context.Context, namespace string) func() []metav1.ObjectMeta {
	if o.CronJobs == nil {
		return nil
	}
	return func() []metav1.ObjectMeta {
		all, err := o.CronJobs(ctx, namespace)
		if err != nil {
			o.logger().Warn("list cron jobs", "namespace", namespace, "error", err)
		}
		return all
	}
}

func (o Options) logger() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// malformed returns the answer to text that does not decode. The answer has only the
// beginning of the decoder's error, which may quote the whole text.
func malformed(err error) admission.Response {
	return admission.Errored(http.StatusBadRequest, errors.New(api.Brief(err.Error(), reason.MaxCause)))
}
