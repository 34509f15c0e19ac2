// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// AgentSilent is the reason of the Event on a pod whose agent runs, and has never written the pod's condition. Such an
// agent cannot write an Event itself, because it does not reach the API server.
const AgentSilent = "AgentSilent"

// unheard marks, in the cache, a pod whose agent does not run yet, and heard one whose agent has spoken.
const (
	unheard = "Unheard"
	heard   = "Heard"
)

const (
	// silentNotice is the time after which silence causes an Event. An agent needs about a second once its Lease exists.
	silentNotice = 30 * time.Second
	// heardWithin bounds the age up to which enroll looks again every silentNotice at a pod whose agent does not run yet.
	// Later, it looks once in that time. No event tells enroll of the start of an agent, because each event costs a
	// snapshot of the whole namespace.
	heardWithin = 5 * time.Minute
)

// stripStatus keeps the phase. The reason tells what the agent of a gated pod has said: [AgentSilent] if it runs and has
// said nothing, [unheard] if it does not run yet, [heard] if it has spoken. The cache may strip a pod twice.
func stripStatus(whole *corev1.Pod) corev1.PodStatus {
	kept := corev1.PodStatus{Phase: whole.Status.Phase}
	of := func(c corev1.PodCondition) bool { return c.Type == api.ReadyCondition }
	switch {
	case slices.Contains([]string{AgentSilent, unheard, heard}, whole.Status.Reason):
		kept.Reason = whole.Status.Reason
	case whole.Labels[api.GatedLabel] != api.Gated, !podspec.HasGate(&whole.Spec), podspec.ServesLocal(&whole.Spec), ended(whole),
		slices.ContainsFunc(whole.Status.Conditions, of): // a program that asks by itself may never make its agent write
		kept.Reason = heard
	case slices.ContainsFunc(whole.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == api.AgentContainer && s.State.Running != nil
	}):
		kept.Reason = AgentSilent
	default:
		kept.Reason = unheard
	}
	return kept
}

// addSilent remembers a pod whose agent has said nothing.
func (s *snapshot) addSilent(pod *corev1.Pod) {
	switch {
	case pod.DeletionTimestamp != nil || pod.Status.Reason == heard:
	case pod.Status.Reason == unheard:
		s.youngest = latest(s.youngest, pod.CreationTimestamp.Time)
	default:
		if s.silent == nil {
			s.silent = map[string]*corev1.Pod{}
		}
		s.silent[string(pod.UID)] = pod
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// notifySilent writes an Event on each pod whose agent has been silent for silentNotice. The result is the time until the
// next look at the pods; zero if none is needed.
func (n *spells) notifySilent(events Recorder, seen *snapshot, now time.Time) (again time.Duration) {
	due, again := n.observe(seen.namespace, slices.Sorted(maps.Keys(seen.silent)), silentNotice, now)
	switch {
	case now.Sub(seen.youngest) < heardWithin:
		again = step.Sooner(again, silentNotice)
	case !seen.youngest.IsZero():
		again = step.Sooner(again, heardWithin)
	}
	if events == nil {
		return again
	}
	for _, uid := range due {
		pod := seen.silent[uid]
		id := api.Identity(pod.Name, uid)
		holds := func(l *step.Lease) bool { return l.Holder == id }
		if slices.ContainsFunc(slices.Collect(maps.Values(seen.Leases)), holds) {
			continue // only its condition is refused
		}
		events.Eventf(pod, nil, corev1.EventTypeWarning, AgentSilent, "Enroll",
			"The agent of this pod has run for %d s without a word to the API server, so the application waits. "+
				"Often a NetworkPolicy forbids egress to the API server, or a proxy or mesh is in between. "+
				"Its log has the cause: kubectl -n %s logs %s -c %s. (%sdocs/operate/network.md#egress-of-gated-pods)",
			int(silentNotice/time.Second), seen.namespace, pod.Name, api.AgentContainer, api.Repository)
	}
	return again
}
