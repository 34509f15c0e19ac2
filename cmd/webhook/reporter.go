// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
)

// admissions counts the results of requests, with their reasons. A dry run creates no object, so a
// person who only tries a manifest must not cause an alert about refused pods.
var admissions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "metaparticle_admissions_total",
	Help: "Pods and workloads that the API server sent, by result. " +
		"An object with several reasons counts once for each. Dry runs do not count.",
}, []string{"resource", "result", "reason"})

func init() { metrics.Registry.MustRegister(admissions) }

const (
	// maxQueued is the largest number of refusals whose Events are still to be written. The reporter
	// drops the Events of further refusals, but still counts the refusals.
	maxQueued = 100
	// maxQueuedOfNamespace is the largest number of such refusals in one namespace. So the pods of one
	// namespace leave room for the Events of other namespaces.
	maxQueuedOfNamespace = 10
)

const (
	refusedNote = "A pod was refused: %s"
	// warnedNote begins the Event about a warning that only a pod gets, such as one about the command
	// of its image. Only the pod's controller gets the warning itself, and nobody reads it there.
	warnedNote = "A pod was admitted with a warning: %s"
	// maxNote is the length, in bytes, of the longest note of an Event that the API server
	// accepts.
	maxNote = 1024
)

// reporter counts outcomes, and writes Events at the workloads of refused and warned pods. Kubernetes itself
// writes an Event only at the pod's controller, always with the reason FailedCreate. But people
// look at the workload, and search for the reason that the alert about refused pods names.
type reporter struct {
	owners  owners
	events  enroll.Recorder
	refused chan admit.Outcome
	// paces bounds the Events of each namespace. Only the method Start uses this field.
	paces paces

	mu sync.Mutex
	// queued has the number of refusals of each namespace in the channel "refused".
	queued map[string]int
}

func newReporter(live objects, cached client.Reader, events enroll.Recorder) *reporter {
	return &reporter{
		owners: owners{live: live, cached: cached}, events: events, refused: make(chan admit.Outcome, maxQueued),
		paces: paces{}, queued: map[string]int{},
	}
}

// observe counts the outcome of one request, except of a dry run. After the refusal of a pod with
// an owner, or a warning about it, observe also passes the outcome to the method Start. If the queue of Start has no room for
// the namespace, Start writes no Event about this outcome. The method "observe" never blocks.
func (r *reporter) observe(o admit.Outcome) {
	if o.DryRun {
		return
	}
	result := "unchanged"
	switch {
	case o.Denied:
		result = "denied"
	case o.Changed:
		result = "patched"
	}
	for _, reason := range o.Reasons {
		admissions.WithLabelValues(o.Resource, result, string(reason)).Inc()
	}
	if len(o.Reasons) == 0 {
		admissions.WithLabelValues(o.Resource, result, "").Inc()
	}
	if o.Owner == nil || len(o.Reasons) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	most := maxQueuedOfNamespace
	if !o.Denied {
		most /= 2 // warnings leave room for refusals
	}
	if r.queued[o.Namespace] >= most {
		return
	}
	select {
	case r.refused <- o:
		r.queued[o.Namespace]++
	default:
	}
}

// leave removes a refusal from the count of its namespace.
func (r *reporter) leave(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queued[namespace]--; r.queued[namespace] == 0 {
		delete(r.queued, namespace)
	}
}

// NeedLeaderElection returns false, because every replica reports its own refusals.
func (r *reporter) NeedLeaderElection() bool { return false }

// Start writes Events until the context ends.
func (r *reporter) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-r.refused:
			r.leave(o.Namespace)
			r.report(ctx, o)
		}
	}
}

// report writes the Event about a refused pod, unless the namespace has had too many Events. A refusal
// without an Event counts for no namespace, because any client of the webhook can name a namespace.
func (r *reporter) report(ctx context.Context, o admit.Outcome) {
	now := time.Now()
	if !o.Denied {
		now = now.Add(-refusedBurst / 2 * refusedPause) // warnings leave half of the burst to refusals
	}
	if !r.paces.allow(o.Namespace, now) {
		return
	}
	workload := r.workload(ctx, o)
	if workload == nil {
		return
	}
	r.paces.spend(o.Namespace, time.Now())
	note := refusedNote
	if !o.Denied {
		note = warnedNote
	}
	r.events.Eventf(workload, nil, corev1.EventTypeWarning, string(o.Reasons[0]), "Inject",
		note, api.Brief(o.Message, maxNote-len(note)))
}

// workload returns the object that gets the Event about a refused pod. The object is the pod's
// owner. If the owner is a ReplicaSet, a ReplicationController or a Job that has a controller, the
// object is this controller. The author of a pod writes the owner reference. So the result is nil if no object
// with the reference's UID exists. The result is also nil if the owner's kind is not of
// Kubernetes' own APIs, because the webhook may not read such an owner. If the owner names a
// controller of Kubernetes' own APIs, and no object has that controller's UID, the result is the
// owner. The result can also be a controller of another API, without such a check. The result has
// no resource version, so equal Events become one series. For the same reason, the result has the
// version that the webhook reads, and not the version in the reference.
func (r *reporter) workload(ctx context.Context, o admit.Outcome) *metav1.PartialObjectMetadata {
	kind, ok := kindOf(o.Owner)
	if !ok {
		return nil
	}
	var owner identity
	if err := r.owners.get(ctx, kind, o.Namespace, o.Owner, &owner); err != nil {
		return nil
	}
	found := o.Owner
	if above := owner.above(kind.Kind); above != nil && above.UID != "" && podspec.IsValidOwner(above) {
		if _, err := r.owners.verify(ctx, o.Namespace, above); err == nil {
			found = above
			if kind, ok = kindOf(above); !ok {
				kind = schema.FromAPIVersionAndKind(above.APIVersion, above.Kind)
			}
		}
	}
	version, name := kind.ToAPIVersionAndKind()
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: version, Kind: name},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: found.Name, UID: found.UID},
	}
}

// kindOf returns the kind of Kubernetes that an owner reference names, in the version that the webhook
// reads. The second result is false if Kubernetes has no such kind.
func kindOf(owner *metav1.OwnerReference) (schema.GroupVersionKind, bool) {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	kind, ok := builtin(version.Group, owner.Kind)
	return kind, ok && err == nil
}
