// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// unheard marks, in the cache, a pod whose agent does not run yet, and fine one of which nothing is suspected.
const (
	unheard = "Unheard"
	fine    = "Fine"
)

// heardWithin bounds the age up to which enroll looks again every [diagnosis.Lasts] at a pod whose agent does not run
// yet. Later, it looks once in that time. No event tells enroll of the start of an agent, because each event costs a
// snapshot of the whole namespace.
const heardWithin = 5 * time.Minute

// stripStatus keeps the phase. The reason tells what [diagnosis.Suspect] says of the whole pod, or one of the marks
// above. The cache may strip a pod twice.
func stripStatus(whole *corev1.Pod) corev1.PodStatus {
	kept := corev1.PodStatus{Phase: whole.Status.Phase, Reason: whole.Status.Reason}
	switch suspicion := diagnosis.Suspect(whole); {
	case kept.Reason == unheard, kept.Reason == fine, diagnosis.Ours(reason.Reason(kept.Reason)):
	case suspicion != "":
		kept.Reason = string(suspicion)
	case diagnosis.Unheard(whole):
		kept.Reason = unheard
	default:
		kept.Reason = fine
	}
	return kept
}

// addSuspect remembers a pod that may deserve an Event.
func (s *snapshot) addSuspect(pod *corev1.Pod) {
	switch {
	case pod.DeletionTimestamp != nil || pod.Status.Reason == fine:
	case pod.Status.Reason == unheard:
		s.youngest = latest(s.youngest, pod.CreationTimestamp.Time)
	default:
		if s.suspects == nil {
			s.suspects = map[string]*corev1.Pod{}
		}
		s.suspects[string(pod.UID)+" "+pod.Status.Reason] = pod
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// notifySuspects writes an Event on each pod whose fault has lasted for [diagnosis.Lasts], by this process's clock. The
// result is the time until the next look at the pods; zero if none is needed.
func (n *spells) notifySuspects(events Recorder, seen *snapshot, now time.Time) (again time.Duration) {
	due, again := n.observe(seen.namespace, slices.Sorted(maps.Keys(seen.suspects)), diagnosis.Lasts, now)
	switch {
	case now.Sub(seen.youngest) < heardWithin:
		again = step.Sooner(again, diagnosis.Lasts)
	case !seen.youngest.IsZero():
		again = step.Sooner(again, heardWithin)
	}
	if events == nil {
		return again
	}
	for _, key := range due {
		pod := seen.suspects[key]
		id := api.Identity(pod.Name, string(pod.UID))
		exists := func(slot string) bool { return seen.Leases[slot] != nil }
		l := diagnosis.Leases{Missing: diagnosis.Missing(pod, exists)}
		l.Held = slices.ContainsFunc(slices.Collect(maps.Values(seen.Leases)), func(l *step.Lease) bool { return l.Holder == id })
		if note := diagnosis.EventNote(reason.Reason(pod.Status.Reason), pod, l); note != "" {
			events.Eventf(pod, nil, corev1.EventTypeWarning, pod.Status.Reason, "Enroll", "%s", note)
		}
	}
	return again
}
