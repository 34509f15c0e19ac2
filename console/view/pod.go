// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// These are the kinds of slots that the console and the plugin treat differently from other kinds.
var (
	// RWLock is the kind of the slots of a read-write lock.
	RWLock = api.RWLock.Name()
	// Once is the kind of the slots of once claims.
	Once = api.Once.Name()
	// Shards is the kind of shards.
	Shards = api.Shards.Name()
	// Barrier is the kind of the Leases of barriers.
	Barrier = api.Arrivals.Name()
	// startLock is the kind of start locks.
	startLock = api.StartLock.Name()
)

// ReasonDone is the agent's reason in the condition of a pod whose work is done.
const ReasonDone = "Done"

// These are agents' reasons in the conditions of a holder whose application runs and fails its probes, and of a pod
// that wishes for its turn.
const (
	reasonFails = "ApplicationNotReady"
	reasonAsks  = api.ReasonAsksForItsTurn
)

// These are the reason and the message of a pod whose program bids for slots by the local API.
const (
	localReason = "LocalAPI"
	AsksItself  = "the program asks by the local API"
)

// KindOf returns the kind of a slot, which is the first word of the slot's name.
func KindOf(slot string) string {
	if IsMistake(slot) {
		return Mistake
	}
	kind, _, _ := strings.Cut(slot, ".")
	if kind != startLock {
		kind, _, _ = strings.Cut(kind, "-")
	}
	return kind
}

// Condition returns the pod condition that the agent wrote in the pod's status. The second result
// is false before the agent has written the pod condition.
func Condition(pod corev1.Pod) (corev1.PodCondition, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == api.ReadyCondition {
			return c, true
		}
	}
	return corev1.PodCondition{}, false
}

// Ready reports whether the pod is Ready.
func Ready(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// expected are the kubelet's reasons for a container that is about to start. With the gate "pod"
// each container of a standby waits with the first of these reasons.
var expected = []string{"PodInitializing", "ContainerCreating"}

// Trouble returns what keeps the pod from running its containers as usual: the pod failed or has no
// node, or the kubelet cannot start a container, or not start it again. The text is empty for a pod
// that runs, starts or ends as it should.
func Trouble(pod corev1.Pod) string {
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		return "it has failed: " + api.Shortened(pod.Status.Reason, MaxWord) + ": " + api.Shortened(pod.Status.Message, MaxMessage)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "no node has it: " + api.Shortened(c.Reason, MaxWord) + ": " + api.Shortened(c.Message, MaxMessage)
		}
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if text := stopped(s); text != "" {
			return "its init container " + api.Shortened(s.Name, MaxWord) + text
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if text := stopped(s); text != "" {
			return "its container " + api.Shortened(s.Name, MaxWord) + text
		}
	}
	return ""
}

// silentAfter is the time for which a new agent may say nothing. It needs a second once enroll has made the Lease.
const silentAfter = 30 * time.Second

// SilentAgent returns why the application of a gated pod waits in vain: its agent has run for [silentAfter] and has stored no
// condition, so it reaches no API server. The text is empty for other pods, also for programs that claim by themselves.
func SilentAgent(pod corev1.Pod, now time.Time) string {
	if _, spoke := Condition(pod); spoke || !Gated(pod) || podspec.ServesLocal(&pod.Spec) || pod.DeletionTimestamp != nil {
		return ""
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == api.AgentContainer && s.State.Running != nil && now.Sub(s.State.Running.StartedAt.Time) >= silentAfter {
			return "its agent has been silent since its start " + duration.HumanDuration(now.Sub(s.State.Running.StartedAt.Time)) +
				" ago, so the application waits. Usually the pod cannot reach the API server: a NetworkPolicy without egress to it, " +
				"or a proxy or mesh in between (" + api.Repository + "docs/operate/network.md#egress-of-gated-pods)"
		}
	}
	return ""
}

// backsOff is the kubelet's reason for a container that ends again and again.
const backsOff = "CrashLoopBackOff"

// stopped returns why the container does not run; empty if the container runs, or is about to.
func stopped(s corev1.ContainerStatus) string {
	last := s.LastTerminationState.Terminated
	switch w, ended := s.State.Waiting, s.State.Terminated; {
	case w != nil && w.Reason == backsOff && last != nil:
		return fmt.Sprintf(" does not run: %s after %s, restart %d", backsOff, exitOf(last), s.RestartCount)
	case w != nil && w.Reason != "" && !slices.Contains(expected, w.Reason):
		text := " does not run: " + api.Shortened(w.Reason, MaxWord)
		if w.Message != "" && w.Reason != backsOff { // the message of a back-off names only its duration
			text += ": " + api.Shortened(w.Message, MaxMessage)
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
		text += " (" + api.Shortened(t.Reason, MaxWord) + ")"
	}
	return text
}

// Gated reports whether the webhook has gated the pod.
func Gated(pod corev1.Pod) bool {
	return pod.Labels[api.GatedLabel] == api.Gated && podspec.HasGate(&pod.Spec)
}

// Claimed returns the slots that a gated pod claims, in the order of the annotation. The function
// leaves out the annotation's entries that stand for Variables or barriers.
func Claimed(pod corev1.Pod) []string {
	written := pod.Annotations[api.SlotsAnnotation]
	if !Gated(pod) || written == "" {
		return nil
	}
	return slices.DeleteFunc(strings.Split(written, ","), func(mark string) bool { return !api.IsSlot(mark) })
}

// IdentityOf returns the identity by which a pod holds.
func IdentityOf(pod corev1.Pod) string { return api.Identity(pod.Name, string(pod.UID)) }

// HolderOf returns the identity in a Lease; empty if nobody holds.
func HolderOf(l *coordinationv1.Lease) string {
	if l == nil {
		return ""
	}
	return ptr.Deref(l.Spec.HolderIdentity, "")
}

// Last returns the last instant of an Event. This function compares several fields, because the
// authors of Events fill in different fields.
func Last(event corev1.Event) time.Time {
	at := event.CreationTimestamp.Time
	for _, other := range []time.Time{event.LastTimestamp.Time, event.EventTime.Time} {
		if other.After(at) {
			at = other
		}
	}
	if event.Series != nil && event.Series.LastObservedTime.After(at) {
		at = event.Series.LastObservedTime.Time
	}
	return at
}

// waitsSince returns the earliest instant from which a standby can have waited for its slots. The
// instant is the start of the pod's last shim, or the start of the pod if no shim runs.
func waitsSince(pod corev1.Pod) (at time.Time) {
	if pod.Status.StartTime != nil {
		at = pod.Status.StartTime.Time
	}
	for i, c := range pod.Spec.Containers {
		if !api.IsShim(c.Command) {
			continue
		}
		for _, s := range pod.Status.ContainerStatuses {
			if run := s.State.Running; s.Name == pod.Spec.Containers[i].Name && run != nil && run.StartedAt.After(at) {
				at = run.StartedAt.Time
			}
		}
	}
	return at
}

// agentArgs returns the arguments of the pod's agent; the zero value for a pod without an agent.
func agentArgs(pod *corev1.Pod) api.RunArgs {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == api.AgentContainer {
			return api.RecallRunArgs(c.Args)
		}
	}
	return api.RunArgs{}
}

// PreferKey returns the key of the label by which pods of the workload are preferred; empty for none.
func PreferKey(pod *corev1.Pod) string { return agentArgs(pod).Prefer.Key }

// preferred reports whether the preference of the pod's workload names the pod.
func (c claimant) preferred() bool {
	return c.args.Prefer != api.Preference{} && c.label == c.args.Prefer.Value
}

// Standby is a gated pod that claims a slot, and does not hold it.
type Standby struct {
	Pod     string `json:"pod"`
	Node    string `json:"node,omitempty"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Program reports that the program of the pod bids for its slots by the local API. The cluster
	// does not show whether the program has a bid at present.
	Program bool `json:"program,omitempty"`
	// Deleted reports that the pod is being deleted, so it begins no hold.
	Deleted bool `json:"beingDeleted,omitempty"`
	// WaitsSince is the instant since which the pod waits: the last start of its shim, or its last
	// release according to Events. The field is absent if the pod's program bids by the local API.
	WaitsSince *time.Time `json:"waitsSince,omitempty"`

	// Identity is the identity by which the pod would hold.
	Identity string `json:"-"`

	uid types.UID
	// The field "preferred" reports that a preference names the pod. readySince is the instant since which the
	// standby has been Ready; nil if it is not.
	preferred  bool
	readySince *time.Time
	// revision identifies the pod's template; the zero value without turns. The field "trouble" reports that
	// something keeps the pod's containers from running.
	revision api.Revision
	trouble  bool
}

// claimant has the facts about a gated pod that are the same for all slots that the pod claims. Any
// tenant can make pods that claim thousands of slots, so the facts are computed once for each pod.
type claimant struct {
	identity string
	node     string
	deleted  bool
	// args are the arguments of the pod's agent, and label is the pod's value of the label that its preference names.
	args  api.RunArgs
	label string
	// failing is the instant since which the application runs and fails its probes; nil otherwise. The field "unserved"
	// reports that it has never passed them in this hold.
	failing  *time.Time
	unserved bool
	// standby is nil if the pod has ended.
	standby *Standby
	// The field "past" reports that no main container of the pod has a shim, and that all init containers have ended.
	past bool
	// started reports that the agent's pod condition is True. If the pod has a start lock, the
	// application has then started.
	started bool
}

func claimantOf(pod *corev1.Pod) claimant {
	c := claimant{identity: IdentityOf(*pod), node: api.Shortened(pod.Spec.NodeName, MaxIdentity), deleted: pod.DeletionTimestamp != nil, args: agentArgs(pod)}
	c.label = pod.Labels[c.args.Prefer.Key]
	said, ok := Condition(*pod)
	since := instant(said.LastTransitionTime.Time)
	if said.Reason == reasonFails {
		c.failing, c.unserved = since, strings.HasSuffix(said.Message, api.NotServedYet)
	}
	c.started = ok && said.Status == corev1.ConditionTrue
	waits := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return api.IsShim(c.Command) })
	c.past = !waits && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodInitialized && c.Status == corev1.ConditionTrue
	})
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		c.standby = standbyOf(pod)
		c.standby.revision = c.args.Revision
		if c.standby.preferred = c.preferred(); c.standby.Ready {
			c.standby.readySince = since
		}
	}
	return c
}

// standbyOf returns the pod as a standby.
func standbyOf(pod *corev1.Pod) *Standby {
	standby := &Standby{
		Pod: pod.Name, Node: api.Shortened(pod.Spec.NodeName, MaxIdentity), Identity: IdentityOf(*pod),
		Reason: "Unknown", Message: "its agent has said nothing yet", uid: pod.UID,
	}
	switch said, ok := Condition(*pod); {
	case podspec.ServesLocal(&pod.Spec):
		standby.Program, standby.Ready = true, Ready(*pod)
		standby.Reason, standby.Message = localReason, AsksItself
	case ok:
		standby.Ready, standby.Reason, standby.Message = said.Status == corev1.ConditionTrue, api.Shortened(said.Reason, MaxWord), api.Shortened(said.Message, MaxMessage)
	}
	if trouble := Trouble(*pod); trouble != "" && !standby.Program {
		standby.Ready, standby.trouble = false, true
		standby.Message += "; " + trouble
	}
	if pod.DeletionTimestamp != nil {
		standby.Deleted = true
		standby.Message += "; it is being deleted"
	}
	if since := waitsSince(*pod); !standby.Program && !since.IsZero() {
		standby.WaitsSince = instant(since)
	}
	return standby
}
