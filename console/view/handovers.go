// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// Handover is one acquisition of a slot, as Events report it.
type Handover struct {
	// At is the time of the acquisition.
	At  time.Time `json:"at"`
	Pod string    `json:"pod"`
	// From is the pod whose Event tells of the release before this acquisition. The field
	// Reason is the reason of the Event at the end of that pod's hold. A field is empty if
	// its Event is missing.
	From   string `json:"from,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Cause is the message of that Event.
	Cause string `json:"cause,omitempty"`
	// Seconds is the time between release and acquisition, in whole seconds, because
	// Events have no fractions.
	Seconds *float64 `json:"seconds,omitempty"`
}

// history is what Events tell about one slot.
type history struct {
	// handovers are the acquisitions, the latest first.
	handovers []Handover
	// released has the last release of each pod, by the pod's uid.
	released map[types.UID]time.Time
}

// told has the Events about one slot since the last acquisition.
type told struct{ ending, released *corev1.Event }

// historiesOf returns the history of each slot that the agents' Events name.
func historiesOf(events []*corev1.Event) map[types.NamespacedName]history {
	events = slices.DeleteFunc(slices.Clone(events), func(e *corev1.Event) bool { return e.InvolvedObject.Kind != "Pod" })
	slices.SortStableFunc(events, inOrder)
	all, since := map[types.NamespacedName]history{}, map[types.NamespacedName]told{}
	for _, e := range events {
		for _, name := range slotsIn(e.Message) {
			slot := types.NamespacedName{Namespace: e.Namespace, Name: name}
			h, before := all[slot], since[slot]
			switch {
			case e.Reason == api.ReasonAcquired:
				h.handovers = append(h.handovers, handoverOf(e, before.ending, before.released))
				before = told{}
			case e.Reason == api.ReasonReleased:
				if h.released == nil {
					h.released = map[types.UID]time.Time{}
				}
				before.released, h.released[e.InvolvedObject.UID] = e, Last(*e)
			case strings.Contains(e.Message, api.Draining):
				before.ending = e
			}
			all[slot], since[slot] = h, before
		}
	}
	for _, h := range all {
		slices.Reverse(h.handovers)
	}
	return all
}

// Handovers returns the last handovers of each slot that the agents' Events report, the latest
// first, but not more than the given number.
func Handovers(events []*corev1.Event, most int) map[types.NamespacedName][]Handover {
	all := map[types.NamespacedName][]Handover{}
	for slot, h := range historiesOf(events) {
		all[slot] = h.handovers[:min(len(h.handovers), most)]
	}
	return all
}

// inOrder orders Events by their times. Among the Events of one second, the end of
// a hold comes first, its release second, and the next acquisition last.
func inOrder(a, b *corev1.Event) int {
	if order := Last(*a).Compare(Last(*b)); order != 0 {
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

func handoverOf(acquired, ending, released *corev1.Event) Handover {
	h := Handover{At: Last(*acquired), Pod: acquired.InvolvedObject.Name}
	if released == nil {
		return h
	}
	seconds := h.At.Sub(Last(*released)).Seconds()
	h.From, h.Seconds = released.InvolvedObject.Name, &seconds
	if ending != nil && ending.InvolvedObject.UID == released.InvolvedObject.UID {
		h.Reason, h.Cause = OneLine(ending.Reason), OneLine(ending.Message)
	}
	return h
}

// slotsIn returns the slots that an Event's message names, each once.
func slotsIn(message string) (slots []string) {
	for _, word := range strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" ,:;()", r) }) {
		if api.IsSlot(word) && !slices.Contains(slots, word) {
			slots = append(slots, word)
		}
	}
	return slots
}
