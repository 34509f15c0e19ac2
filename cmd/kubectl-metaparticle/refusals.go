// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// mostRefusals bounds the controllers that the command "status" names, so that the notes fit on a screen.
const mostRefusals = 5

// mostRefusal is the largest number of bytes that the command "status" shows of one Event.
const mostRefusal = 512

// addRefusals adds the Events about refused pods to the state, so that the slots of their workloads need
// attention.
func (o objects) addRefusals(events []corev1.Event) {
	for i := range events {
		o.events[events[i].UID] = &events[i]
	}
}

// refusals returns the Events about refused pods, the newest first, and a note for each controller whose pods the webhook or a policy refused, the newest
// first. A refused pod has no slot yet, so the list of slots lacks such a pod. The API server keeps
// Events for an hour. A person who may not read Events gets no notes.
func (c cluster) refusals(ctx context.Context, namespace string, now time.Time) ([]corev1.Event, []string) {
	var events corev1.EventList
	if err := c.List(ctx, &events, client.InNamespace(namespace), client.MatchingFields{"reason": view.FailedCreate}); err != nil {
		return nil, nil
	}
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return view.Last(b).Compare(view.Last(a)) })
	var notes []string
	seen := map[types.UID]bool{}
	for _, event := range events.Items {
		of := event.InvolvedObject
		switch {
		case !refuses(event) || seen[of.UID]:
			continue
		case len(notes) == mostRefusals:
			return events.Items, append(notes, "further controllers had pods refused: kubectl get events -A --field-selector reason=FailedCreate")
		}
		seen[of.UID] = true
		notes = append(notes, fmt.Sprintf("a pod of %s/%s in %s was refused %s ago: %s", of.Kind, of.Name, event.Namespace,
			age(now, view.Last(event)), api.Shortened(withoutPod(event.Message), mostRefusal)))
	}
	return events.Items, notes
}
