// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
)

// admissions counts the results of requests, with their reasons.
var admissions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "metaparticle_admissions_total",
	Help: "Pods and workloads that the API server sent, by result. " +
		"An object with several reasons counts once for each.",
}, []string{"resource", "result", "reason"})

func init() { metrics.Registry.MustRegister(admissions) }

// waiting is the largest number of refusals whose Events are still to be written. The reporter
// drops the Events of further refusals, but still counts the refusals.
const waiting = 100

const (
	refusedNote = "A pod was refused: %s"
	// maxNote is the length, in bytes, of the longest note of an Event that the API server
	// accepts.
	maxNote = 1024
)

// reporter counts outcomes, and writes Events at the workloads of refused pods. Kubernetes
// itself writes an Event only at the ReplicaSet, where few people look.
type reporter struct {
	reader  client.Reader
	events  enroll.Recorder
	refused chan admit.Outcome
}

func newReporter(reader client.Reader, events enroll.Recorder) *reporter {
	return &reporter{reader: reader, events: events, refused: make(chan admit.Outcome, waiting)}
}

// observe counts the outcome of one request. After the refusal of a pod with an owner, outside of a
// dry run, observe also passes the outcome to the method Start. If the queue of Start is full,
// Start writes no Event about this outcome. The method "observe" never blocks.
func (r *reporter) observe(o admit.Outcome) {
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
	if !o.Denied || o.DryRun || o.Owner == nil || len(o.Reasons) == 0 {
		return
	}
	select {
	case r.refused <- o:
	default:
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
			if workload := r.above(ctx, o); workload != nil {
				r.events.Eventf(workload, nil, corev1.EventTypeWarning, string(o.Reasons[0]), "Inject",
					refusedNote, api.Brief(o.Message, maxNote-len(refusedNote)))
			}
		}
	}
}

// above returns the workload that controls the ReplicaSet or the Job of a refused pod. The result
// is nil if no such workload exists, or if a read fails.
func (r *reporter) above(ctx context.Context, o admit.Outcome) *metav1.PartialObjectMetadata {
	var owner client.Object
	switch o.Owner.Kind {
	case "ReplicaSet":
		owner = &appsv1.ReplicaSet{}
	case "Job":
		owner = &batchv1.Job{}
	default:
		return nil
	}
	if err := r.reader.Get(ctx, types.NamespacedName{Namespace: o.Namespace, Name: o.Owner.Name}, owner); err != nil {
		return nil
	}
	// The author of a pod writes the owner reference. If the UIDs differ, the reference means
	// another object, and the workload of this object gets no Event.
	if owner.GetUID() != o.Owner.UID {
		return nil
	}
	above := metav1.GetControllerOf(owner)
	if above == nil {
		return nil
	}
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: above.APIVersion, Kind: above.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: above.Name, UID: above.UID},
	}
}
