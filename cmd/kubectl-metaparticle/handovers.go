// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// handover is one acquisition of a slot, as Events report it.
type handover struct {
	// At is the time of the acquisition.
	At  time.Time `json:"at"`
	Pod string    `json:"pod"`
	// From is the pod whose Event tells of the release before this acquisition. The field
	// Reason is the reason of the Event at the end of that pod's hold. A field is empty if
	// its Event is missing.
	From   string `json:"from,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Seconds is the time between release and acquisition, in whole seconds, because
	// Events have no fractions.
	Seconds *float64 `json:"seconds,omitempty"`
}

// mostHandovers bounds the handovers that are shown of a slot, so that they fit on
// a screen.
const mostHandovers = 3

// handovers returns the last handovers of the slot that the agents' Events report, the
// latest first.
func handovers(events []*corev1.Event, slot types.NamespacedName) (all []handover) {
	events = slices.DeleteFunc(events, func(e *corev1.Event) bool {
		return e.Namespace != slot.Namespace || e.InvolvedObject.Kind != "Pod" || !names(e.Message, slot.Name)
	})
	slices.SortStableFunc(events, inOrder)
	var ending, released *corev1.Event
	for _, e := range events {
		switch {
		case e.Reason == api.ReasonAcquired:
			all = append(all, handoverOf(e, ending, released))
			ending, released = nil, nil
		case e.Reason == api.ReasonReleased:
			released = e
		case strings.Contains(e.Message, api.Draining):
			ending = e
		}
	}
	slices.Reverse(all)
	return all[:min(len(all), mostHandovers)]
}

// inOrder orders Events by their times. Among the Events of one second, the end of
// a hold comes first, its release second, and the next acquisition last.
func inOrder(a, b *corev1.Event) int {
	if order := last(*a).Compare(last(*b)); order != 0 {
		return order
	}
	rank := func(e *corev1.Event) int {
		switch e.Reason {
		case api.ReasonAcquired:
			return 2
		case api.ReasonReleased:
			return 1
		}
		return 0
	}
	return rank(a) - rank(b)
}

func handoverOf(acquired, ending, released *corev1.Event) handover {
	h := handover{At: last(*acquired), Pod: acquired.InvolvedObject.Name}
	if released == nil {
		return h
	}
	seconds := h.At.Sub(last(*released)).Seconds()
	h.From, h.Seconds = released.InvolvedObject.Name, &seconds
	if ending != nil && ending.InvolvedObject.UID == released.InvolvedObject.UID {
		h.Reason = ending.Reason
	}
	return h
}

// names reports whether the Event's message names this very slot, and not only a slot
// with a longer name.
func names(message, slot string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(message, func(r rune) bool {
		return strings.ContainsRune(" ,:;()", r)
	}), func(word string) bool { return word == slot })
}
