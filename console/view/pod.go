// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/diagnosis"
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

	// Said is the message without what is wrong with the pod, which is a finding of the slot.
	Said string `json:"-"`
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
	finding  *diagnosis.Finding
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
	// standby is nil if the pod has ended, and finding if nothing is wrong with it.
	standby *Standby
	finding *diagnosis.Finding
	// The field "past" reports that no main container of the pod has a shim, and that all init containers have ended.
	past bool
	// started reports that the agent's pod condition is True. If the pod has a start lock, the
	// application has then started.
	started bool
}

func claimantOf(pod *corev1.Pod, l diagnosis.Leases, now time.Time) claimant {
	c := claimant{identity: IdentityOf(*pod), node: api.Shortened(pod.Spec.NodeName, MaxIdentity), deleted: pod.DeletionTimestamp != nil, args: agentArgs(pod)}
	c.label, c.finding = pod.Labels[c.args.Prefer.Key], diagnosis.OfPod(pod, l, now)
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
		c.standby.suffer(c.finding)
		c.standby.revision = c.args.Revision
		if c.standby.preferred = c.preferred(); c.standby.Ready {
			c.standby.readySince = since
		}
	}
	return c
}

// suffer adds what is wrong with the pod to what its agent says, which may be older.
func (p *Standby) suffer(f *diagnosis.Finding) {
	p.Said = p.Message
	if f != nil && !p.Program {
		p.Ready, p.trouble, p.finding = false, true, f
		p.Message += "; " + f.Says
	}
	if p.Deleted {
		p.Message, p.Said = p.Message+"; it is being deleted", p.Said+"; it is being deleted"
	}
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
	standby.Deleted = pod.DeletionTimestamp != nil
	if since := waitsSince(*pod); !standby.Program && !since.IsZero() {
		standby.WaitsSince = instant(since)
	}
	return standby
}
