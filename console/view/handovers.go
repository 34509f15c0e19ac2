// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// Handover is one acquisition of a slot, planned or not, as Events report it.
type Handover struct {
	// At is the time of the acquisition.
	At  time.Time `json:"at"`
	Pod string    `json:"pod"`
	// From is the pod that held before, as Events tell. The field Reason is the reason of the same
	// pod's Event about the end of its hold. If only the Event of the release states a cause, Reason
	// is the reason of that Event.
	From   string `json:"from,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Cause is the message of the Event with that reason, or the cause in the message of the
	// release.
	Cause string `json:"cause,omitempty"`
	// Seconds is the time between release and acquisition, in whole seconds, because Events have no
	// fractions. The field is nil if no Event tells of the release.
	Seconds *float64 `json:"seconds,omitempty"`
	// First reports that no pod has held the slot before. Expired reports that no Event tells of a
	// release by the pod From: its lease expired, or, more rarely, its agent could not write the Event.
	First   bool `json:"first,omitempty"`
	Expired bool `json:"expired,omitempty"`
}

// history is what Events tell about one slot.
type history struct {
	// handovers are the acquisitions, the latest first.
	handovers []Handover
	// acquired counts all acquisitions, also those that have no place in the list.
	acquired int
	// released has the last release of each pod, by the pod's uid.
	released map[types.UID]time.Time
}

// report is an Event of an agent about slots, with texts for people.
type report struct {
	*corev1.Event

	at                 time.Time
	pod, reason, cause string
}

// told has the Events about the last hold of a slot. The field "acquired" has the Event about
// the acquisition of that hold, "ending" about its end, and "released" about its release. If no
// Event tells of the release of the previous hold, the field "unreleased" has the Event about
// the end of the previous hold.
type told struct{ ending, released, acquired, unreleased *report }

// lateness bounds how late the Event of a release may follow the Event of the next acquisition. The
// next holder acquires within milliseconds, and may send its Event first. Events have whole
// seconds.
const lateness = 5 * time.Second

// isLate reports whether the Event of a release is late: the Event is about the release before the
// last acquisition.
func (t told) isLate(released *report) bool {
	return t.acquired != nil && t.acquired.InvolvedObject.UID != released.InvolvedObject.UID &&
		released.at.Sub(t.acquired.at) <= lateness
}

// ahead bounds how far the clock of an agent may be ahead of the caller's clock. An Event that is
// further ahead is forged, and would be the last handover of its slot for ever.
const ahead = 5 * time.Minute

// historiesOf returns the history of each slot that the agents' Events name, with at most the given
// number of handovers. The function ignores Events that no agent can have written. If the argument
// "now" is not zero, the function also ignores Events of the future.
func historiesOf(events []*corev1.Event, now time.Time, most int) map[types.NamespacedName]history {
	events = slices.DeleteFunc(slices.Clone(events), func(e *corev1.Event) bool {
		last := Last(*e)
		return e.InvolvedObject.Kind != "Pod" || len(e.Message) > MaxMessage || instant(last) == nil || !now.IsZero() && last.Sub(now) > ahead
	})
	slices.SortStableFunc(events, inOrder)
	reports, all := map[types.NamespacedName][]*report{}, map[types.NamespacedName]history{}
	for _, e := range events {
		r := &report{
			Event: e, at: Last(*e).UTC(), pod: api.Shortened(e.InvolvedObject.Name, MaxIdentity),
			reason: api.Shortened(e.Reason, MaxWord), cause: api.Shortened(e.Message, MaxMessage),
		}
		for _, name := range slotsIn(e.Message) {
			slot := types.NamespacedName{Namespace: e.Namespace, Name: name}
			reports[slot] = append(reports[slot], r)
		}
	}
	for slot, of := range reports {
		all[slot] = historyOf(inTurn(slot.Name, of), most)
	}
	return all
}

// historyOf returns the history of one slot.
func historyOf(reports []*report, most int) (h history) {
	var before told
	for _, r := range reports {
		switch {
		case r.Reason == api.ReasonAcquired:
			h.acquired++
			h.handovers = append(h.handovers, handoverOf(r, before))
			h.handovers = h.handovers[max(0, len(h.handovers)-most):]
			next := told{acquired: r}
			if before.released == nil {
				next.unreleased = before.ending
			}
			before = next
		case r.Reason == api.ReasonReleased:
			if h.released == nil {
				h.released = map[types.UID]time.Time{}
			}
			h.released[r.InvolvedObject.UID] = r.at
			if last := len(h.handovers) - 1; last >= 0 && h.handovers[last].Seconds == nil && before.isLate(r) {
				h.handovers[last] = handoverOf(before.acquired, told{ending: before.unreleased, released: r})
			} else {
				before.released = r
			}
		case strings.Contains(r.Message, api.Draining):
			before.ending = r
		}
	}
	slices.Reverse(h.handovers)
	return h
}

// inTurn orders the reports of each second anew if the slot moved more than once in it, as it does if an
// application fails at once in its turn. The acquisitions come by their tokens, and what a pod says about its
// end follows its acquisition.
func inTurn(slot string, reports []*report) (all []*report) {
	var holder types.UID
	for len(reports) > 0 {
		n := slices.IndexFunc(reports, func(r *report) bool { return !r.at.Equal(reports[0].at) })
		if n < 0 {
			n = len(reports)
		}
		var acquired, rest []*report
		acquires := map[types.UID]bool{}
		for _, r := range reports[:n] {
			if r.Reason == api.ReasonAcquired {
				acquired, acquires[r.InvolvedObject.UID] = append(acquired, r), true
			} else {
				rest = append(rest, r)
			}
		}
		slices.SortStableFunc(acquired, func(a, b *report) int { return cmp.Compare(a.token(slot), b.token(slot)) })
		for _, next := range acquired {
			rest = slices.DeleteFunc(rest, func(r *report) bool {
				first := r.InvolvedObject.UID == holder || !acquires[r.InvolvedObject.UID]
				if first {
					all = append(all, r)
				}
				return first
			})
			all, holder = append(all, next), next.InvolvedObject.UID
		}
		all, reports = append(all, rest...), reports[n:]
	}
	return all
}

// token returns the slot's token in the report of an acquisition; zero if there is none.
func (r *report) token(slot string) (token uint64) {
	if _, text, found := strings.Cut(r.Message, slot+" (token "); found {
		text, _, _ = strings.Cut(text, ")")
		token, _ = strconv.ParseUint(text, 10, 64)
	}
	return token
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

// handoverOf returns the acquisition after the given Events.
func handoverOf(acquired *report, before told) Handover {
	h := Handover{At: acquired.at, Pod: acquired.pod}
	ending, last := before.ending, before.released
	switch {
	case before.released != nil:
		seconds := max(0, h.At.Sub(last.at).Seconds())
		h.Seconds = &seconds
	case before.acquired != nil:
		last, h.Expired = before.acquired, true
	default:
		return h
	}
	h.From = last.pod
	if ending != nil && ending.InvolvedObject.UID == last.InvolvedObject.UID {
		h.Reason, h.Cause = ending.reason, ending.cause
	} else if _, cause, found := strings.Cut(last.cause, api.FreeAgain+": "); found {
		h.Reason, h.Cause = last.reason, cause
	}
	return h
}

// mostNamed bounds the number of slots that are read from one Event. The annotation of a claim has
// at most this number of names.
const mostNamed = 32

// slotsIn returns the slots that an Event's message names, each once, but not more than
// [mostNamed].
func slotsIn(message string) (slots []string) {
	named := map[string]bool{}
	for word := range strings.FieldsFuncSeq(message, func(r rune) bool { return strings.ContainsRune(" ,:;()", r) }) {
		if len(slots) == mostNamed {
			break
		}
		if !named[word] && api.IsSlot(word) {
			named[word] = true
			slots = append(slots, word)
		}
	}
	return slots
}
