// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

const (
	// MaxMessage and MaxWord bound the bytes of a text that tenants or the kubelet write: a sentence, and a name.
	MaxMessage, MaxWord = 1024, 256
	// Lasts is the time for which a fault with a beginning must last. An agent needs a second once enroll has made the
	// Lease, and what ends by itself is no finding.
	Lasts = 30 * time.Second
)

// These are the reasons of pods.
const (
	PodFailed        reason.Reason = "PodFailed"
	NoNode           reason.Reason = "NoNode"
	ContainerStopped reason.Reason = "ContainerStopped"
	AgentSilent      reason.Reason = "AgentSilent"
	// NoLease is also the reason of a slot (console/view).
	NoLease reason.Reason = "NoLease"
)

// Leases is what the Leases say about a pod.
type Leases struct {
	// Held reports that one names the pod as its holder. Missing is a slot of the pod that has none; empty for no such
	// slot.
	Held    bool
	Missing string
}

// Missing returns the first slot of the pod without a Lease; empty for none.
func Missing(pod *corev1.Pod, exists func(slot string) bool) string {
	for slot := range strings.SplitSeq(pod.Annotations[api.SlotsAnnotation], ",") {
		if api.IsSlot(slot) && !exists(slot) {
			return slot
		}
	}
	return ""
}

// row is one thing that can be wrong with a pod.
type row struct {
	reason.Explanation
	// of says what is wrong, and since when; an empty text for nothing. Without an instant the finding holds at once.
	of func(pod *corev1.Pod, l Leases) (says string, since time.Time)
	// run is the command that tells more, with NAMESPACE and POD.
	run string
	// ours reports that the application is not the cause. Then check fails, and enroll writes an Event. Such a row must be
	// true of the pod alone, because enroll's cache keeps only the reason, and not what the Leases said.
	ours bool
	// The field "waits" reports that a pod which holds a slot, or for which enroll has made nothing, cannot have the fault.
	waits bool
}

const describe = "kubectl -n NAMESPACE describe pod POD"

// often is the usual cause of an agent's silence.
const often = " Often a NetworkPolicy forbids egress to the API server, or a proxy or mesh is in between"

// pods are all things that can be wrong with a pod. The first that applies hides those below it.
var pods = []row{
	{
		Explanation: reason.Explanation{
			Reason:  PodFailed,
			Meaning: "The kubelet or a controller has ended the pod, for example because its node lacked memory.",
			Do:      "remove the cause that the message names; the pod's controller makes another one",
		},
		of: func(pod *corev1.Pod, _ Leases) (string, time.Time) {
			if pod.Status.Phase != corev1.PodFailed || pod.Status.Reason == "" {
				return "", time.Time{}
			}
			return "it has failed: " + word(pod.Status.Reason) + ": " + message(pod.Status.Message), time.Time{}
		},
		run: describe,
	},
	{
		Explanation: reason.Explanation{
			Reason:  NoNode,
			Meaning: "The scheduler finds no node for the pod.",
			Do:      "follow the scheduler's message",
		},
		of: func(pod *corev1.Pod, _ Leases) (string, time.Time) {
			c := condition(pod, corev1.PodScheduled)
			if c == nil || c.Status != corev1.ConditionFalse {
				return "", time.Time{}
			}
			return "no node has it: " + word(c.Reason) + ": " + message(c.Message), time.Time{}
		},
		run: describe,
	},
	{
		Explanation: reason.Explanation{
			Reason:  ContainerStopped,
			Meaning: "The kubelet cannot start a container of the pod, or not start it again: it crashes, or its image cannot be pulled.",
			Do:      "read the container's log (kubectl logs POD -c CONTAINER --previous), or repair its image",
		},
		of: func(pod *corev1.Pod, _ Leases) (string, time.Time) {
			return stoppedIn(pod), time.Time{}
		},
		run: describe,
	},
	{
		Explanation: reason.Explanation{
			Reason:  NoLease,
			Meaning: "Enroll, a part of the webhook, has not made the Lease of a slot, so the pods that claim the slot wait. Often a ResourceQuota or a policy refuses the Lease, or the webhook is away.",
			Do:      "do what the Event EnrollRefused at the workload says; without such an Event: kubectl metaparticle check",
		},
		of: func(pod *corev1.Pod, l Leases) (string, time.Time) {
			run := agentRun(pod)
			if run == nil || l.Missing == "" || !Unheard(pod) {
				return "", time.Time{}
			}
			return "its slot " + l.Missing + " has no Lease, because enroll has not made it, so the application waits", run.StartedAt.Time
		},
		run: "kubectl -n NAMESPACE events --types=Warning",
	},
	{
		Explanation: reason.Explanation{
			Reason: AgentSilent,
			Meaning: "The agent of a pod has run for 30 s without a word to the API server, so the application waits." +
				often + ".",
			Do:  "let the pod connect to the API server; its agent's log has the cause",
			See: "../operate/network.md#egress-of-gated-pods",
		},
		of: func(pod *corev1.Pod, _ Leases) (string, time.Time) {
			run := agentRun(pod)
			if run == nil || !Unheard(pod) {
				return "", time.Time{}
			}
			return "its agent has run since " + run.StartedAt.UTC().Format(time.RFC3339) + " without a word to the API server, so the application waits." + often, run.StartedAt.Time
		},
		run:  "kubectl -n NAMESPACE logs POD -c " + api.AgentContainer,
		ours: true, waits: true,
	},
}

// OfPod returns what keeps the pod from running its containers as usual; nil if it runs, starts or ends as it
// should.
func OfPod(pod *corev1.Pod, l Leases, now time.Time) *Finding {
	for _, r := range pods {
		says, since := r.of(pod, l)
		if says == "" || r.waits && l != (Leases{}) || !since.IsZero() && now.Sub(since) < Lasts {
			continue
		}
		return r.finding(pod, says)
	}
	return nil
}

// Ours reports whether the application is not the cause of a finding with this reason.
func Ours(of reason.Reason) bool {
	return slices.ContainsFunc(pods, func(r row) bool { return r.Reason == of && r.ours })
}

// Suspect returns the reason of a fault that deserves an Event once it has lasted for the time [Lasts]; empty
// for none. It needs no clock, so a cache that drops the pod's status can keep the reason.
func Suspect(pod *corev1.Pod) reason.Reason {
	for _, r := range pods {
		if says, _ := r.of(pod, Leases{}); r.ours && says != "" {
			return r.Reason
		}
	}
	return ""
}

// EventNote returns the text of the Event about a pod of which a cache has kept only the suspicion; empty if the
// pod cannot have the fault.
func EventNote(suspicion reason.Reason, pod *corev1.Pod, l Leases) string {
	for _, r := range pods {
		if r.Reason == suspicion && (!r.waits || l == Leases{}) {
			f := r.finding(pod, "")
			return r.Meaning + " To do: " + f.Do + ": " + f.Run
		}
	}
	return ""
}

func (r row) finding(pod *corev1.Pod, says string) *Finding {
	return &Finding{
		Reason: r.Reason, About: "pod/" + pod.Name, Says: says, Do: r.Do + " (" + reason.Link(r.Reason) + ")", Severity: Warning,
		Run: strings.NewReplacer("NAMESPACE", pod.Namespace, "POD", pod.Name).Replace(r.run),
	}
}

// Unheard reports whether the agent of a gated pod has yet to write its first word. A program that asks by
// itself may never make its agent write.
func Unheard(pod *corev1.Pod) bool {
	return pod.Labels[api.GatedLabel] == api.Gated && podspec.HasGate(&pod.Spec) && !podspec.ServesLocal(&pod.Spec) &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed &&
		pod.DeletionTimestamp == nil && condition(pod, api.ReadyCondition) == nil
}

func condition(pod *corev1.Pod, of corev1.PodConditionType) *corev1.PodCondition {
	for i, c := range pod.Status.Conditions {
		if c.Type == of {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// agentRun returns the present run of the pod's agent; nil if it does not run.
func agentRun(pod *corev1.Pod) *corev1.ContainerStateRunning {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == api.AgentContainer {
			return s.State.Running
		}
	}
	return nil
}

// Due returns the instant at which a fault of the pod with a beginning becomes a finding; zero without such a fault.
func Due(pod *corev1.Pod) (at time.Time) {
	for _, r := range pods {
		if says, since := r.of(pod, Leases{}); says != "" && !since.IsZero() && (at.IsZero() || since.Add(Lasts).Before(at)) {
			at = since.Add(Lasts)
		}
	}
	return at
}

// Kept returns the parts of a pod's status that [OfPod] reads, with bounded texts. A cache keeps no other.
func Kept(pod *corev1.Pod) corev1.PodStatus {
	kept := corev1.PodStatus{Phase: pod.Status.Phase}
	if pod.Status.Phase == corev1.PodFailed {
		kept.Reason, kept.Message = word(pod.Status.Reason), message(pod.Status.Message)
	}
	for _, of := range []corev1.PodConditionType{corev1.PodScheduled, api.ReadyCondition} {
		if c := condition(pod, of); c != nil && (of == api.ReadyCondition || c.Status == corev1.ConditionFalse) {
			kept.Conditions = append(kept.Conditions, corev1.PodCondition{
				Type: c.Type, Status: c.Status, Reason: word(c.Reason), Message: message(c.Message), LastTransitionTime: c.LastTransitionTime,
			})
		}
	}
	kept.InitContainerStatuses = keptContainers(pod.Status.InitContainerStatuses)
	kept.ContainerStatuses = keptContainers(pod.Status.ContainerStatuses)
	return kept
}

// keptContainers returns the status of the agent, and that of the first container that does not run.
func keptContainers(all []corev1.ContainerStatus) (kept []corev1.ContainerStatus) {
	agent, bad := false, false
	for _, s := range all {
		isAgent, isBad := !agent && s.Name == api.AgentContainer, !bad && stopped(s) != ""
		if isAgent || isBad {
			kept = append(kept, keptContainer(s))
		}
		agent, bad = agent || isAgent, bad || isBad
	}
	return kept
}

func keptContainer(s corev1.ContainerStatus) corev1.ContainerStatus {
	kept := corev1.ContainerStatus{Name: word(s.Name), RestartCount: s.RestartCount}
	kept.State.Running = s.State.Running
	ended := func(t *corev1.ContainerStateTerminated) *corev1.ContainerStateTerminated {
		if t == nil {
			return nil
		}
		return &corev1.ContainerStateTerminated{ExitCode: t.ExitCode, Reason: word(t.Reason)}
	}
	if w := s.State.Waiting; w != nil {
		kept.State.Waiting = &corev1.ContainerStateWaiting{Reason: word(w.Reason)}
		if w.Reason != backsOff {
			kept.State.Waiting.Message = message(w.Message)
		}
	}
	kept.State.Terminated, kept.LastTerminationState.Terminated = ended(s.State.Terminated), ended(s.LastTerminationState.Terminated)
	return kept
}

func word(text string) string    { return api.Shortened(text, MaxWord) }
func message(text string) string { return api.Shortened(text, MaxMessage) }

// stoppedIn returns why a container of the pod does not run.
func stoppedIn(pod *corev1.Pod) string {
	for _, s := range pod.Status.InitContainerStatuses {
		if text := stopped(s); text != "" {
			return "its init container " + word(s.Name) + text
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if text := stopped(s); text != "" {
			return "its container " + word(s.Name) + text
		}
	}
	return ""
}

// expected are the kubelet's reasons for a container that is about to start. With the gate "pod" each
// container of a standby waits with the first of these reasons.
var expected = []string{"PodInitializing", "ContainerCreating"}

// backsOff is the kubelet's reason for a container that ends again and again.
const backsOff = "CrashLoopBackOff"

// stopped returns why the container does not run; empty if the container runs, or is about to.
func stopped(s corev1.ContainerStatus) string {
	last := s.LastTerminationState.Terminated
	switch w, ended := s.State.Waiting, s.State.Terminated; {
	case w != nil && w.Reason == backsOff && last != nil:
		return fmt.Sprintf(" does not run: %s after %s, restart %d", backsOff, exitOf(last), s.RestartCount)
	case w != nil && w.Reason != "" && !slices.Contains(expected, w.Reason):
		text := " does not run: " + word(w.Reason)
		if w.Message != "" && w.Reason != backsOff { // the message of a back-off names only its duration
			text += ": " + message(w.Message)
		}
		return text
	case ended != nil && ended.ExitCode != 0:
		return " has ended with " + exitOf(ended)
	}
	return ""
}

// exitOf returns the exit code of a container's last run, and the reason if it says more.
func exitOf(t *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		text += " (" + word(t.Reason) + ")"
	}
	return text
}
