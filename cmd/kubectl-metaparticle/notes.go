// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// mostRefusals bounds the workloads that the command "status" names, so that the notes fit on a screen, and mostRefusal
// the bytes of one refusal in a note, so that a note is a line.
const (
	mostRefusals = 5
	mostRefusal  = 160
)

// addRefusals adds the Events about refused pods to the state, so that the slots of their workloads need
// attention.
func (o objects) addRefusals(events []corev1.Event) {
	for i := range events {
		o.events[events[i].UID] = &events[i]
	}
}

// refusals returns the Events about refused pods, the newest first, and a note for each workload whose pods the webhook
// or a policy refuses. A refused pod has no slot yet, so the list of slots can lack its workload. The API server keeps
// Events for an hour, and a repaired Deployment has those of its earlier ReplicaSets. So of a Deployment only the newest
// ReplicaSet that lacks pods counts. A person who may not read Events gets no notes, and one who may not read ReplicaSets
// can get old ones.
func (c cluster) refusals(ctx context.Context, namespace string, now time.Time) ([]corev1.Event, []string) {
	var events corev1.EventList
	if err := c.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": view.FailedCreate}); err != nil {
		return nil, nil
	}
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return view.Last(b).Compare(view.Last(a)) })
	current := c.replicaSets(ctx, namespace)
	var notes []string
	seen := map[types.UID]bool{}
	for _, event := range events.Items {
		of := event.InvolvedObject
		name := of.Kind + "/" + of.Name
		if by, known := current[of.UID]; of.Kind == "ReplicaSet" && current != nil {
			if !known {
				continue
			}
			name = by
		}
		switch {
		case !refuses(event) || seen[of.UID]:
			continue
		case len(notes) == mostRefusals:
			return events.Items, append(notes, "further workloads have refused pods: kubectl get events -A --field-selector reason=FailedCreate")
		}
		seen[of.UID] = true
		notes = append(notes, fmt.Sprintf("pods of %s in %s are refused: %s (%s ago)", name, event.Namespace,
			api.Shortened(diagnosis.Brief(event.Message), mostRefusal), age(now, view.Last(event))))
	}
	return events.Items, notes
}

// replicaSets returns the workload of each ReplicaSet that lacks pods, and is the newest of its workload; nil if the
// person may not read ReplicaSets.
func (c cluster) replicaSets(ctx context.Context, namespace string) map[types.UID]string {
	var all appsv1.ReplicaSetList
	if c.List(ctx, &all, client.InNamespace(namespace)) != nil {
		return nil
	}
	newest := map[string]*appsv1.ReplicaSet{}
	names := map[string]string{}
	for i := range all.Items {
		rs := &all.Items[i]
		name := "ReplicaSet/" + rs.Name
		if by := podspec.Above("ReplicaSet", rs); by != nil {
			name = by.Kind + "/" + by.Name
		}
		key := rs.Namespace + "/" + name
		if names[key] = name; newest[key] == nil || newer(rs, newest[key]) {
			newest[key] = rs
		}
	}
	current := map[types.UID]string{}
	for key, rs := range newest {
		if rs.Status.Replicas < ptr.Deref(rs.Spec.Replicas, 1) {
			current[rs.UID] = names[key]
		}
	}
	return current
}
