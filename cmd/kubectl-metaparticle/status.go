// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// slotStatus is one slot, as the command "status" shows it.
type slotStatus struct {
	Namespace string `json:"namespace"`
	Slot      string `json:"slot"`
	// Kind is singleton, lock, election, once, semaphore, shards, start-lock, rwlock or barrier.
	Kind   string        `json:"kind"`
	Holder *holderStatus `json:"holder,omitempty"`
	Paused api.Pause     `json:"paused,omitempty"`
	// Yield is a person's request that the hold ends. The release of the hold removes the
	// request.
	Yield string `json:"yield,omitempty"`
	// Stamp is the stamp of a shard's Lease: the epoch, the number of shards, and whether the
	// Lease is closed.
	Stamp string `json:"stamp,omitempty"`
	// Successor is the identity that the last release names, until a pod holds.
	Successor string `json:"successor,omitempty"`
	// Done are the done keys of a once claim, the oldest first.
	Done []string `json:"done,omitempty"`
	// Opened is the number of pods for which a barrier was opened, in its first Lease.
	Opened int `json:"opened,omitempty"`
	// Failures has the failures in a row of a once claim's work, by key.
	Failures map[string]int  `json:"failures,omitempty"`
	Standbys []standbyStatus `json:"standbys"`
	// Transitions counts the changes of the holder since the Lease was made.
	Transitions int32 `json:"transitions"`
	// Handovers are the last handovers that Events report, the latest first.
	Handovers []handover `json:"handovers"`
	// Missing reports that a pod claims the slot, but that the slot has no Lease of
	// enroll.
	Missing bool `json:"missing,omitempty"`
}

// holderStatus is the pod that holds a slot.
type holderStatus struct {
	Pod      string `json:"pod"`
	Identity string `json:"identity"`
	Workload string `json:"workload,omitempty"`
	Hold     string `json:"hold,omitempty"`
	Token    string `json:"token,omitempty"`
	// Gone reports that no pod has the holder's identity. That is also so if the holder is
	// no agent, but another program.
	Gone         bool       `json:"gone,omitempty"`
	Deleted      bool       `json:"beingDeleted,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	Renewed      *time.Time `json:"renewed,omitempty"`
	ServingSince *time.Time `json:"servingSince,omitempty"`
}

// standbyStatus is a gated pod that claims a slot, and does not hold it.
type standbyStatus struct {
	Pod     string `json:"pod"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Program reports that the program of the pod asks for its slots by the local API. The
	// cluster does not show whether it asks at present.
	Program bool `json:"program,omitempty"`

	identity string
}

// objects are all objects that the command "status" reads, by uid.
type objects struct {
	leases map[types.UID]*coordinationv1.Lease
	pods   map[types.UID]*corev1.Pod
	events map[types.UID]*corev1.Event
}

// statuses returns all slots, or only those of the given names, sorted by namespace and
// name.
func (o objects) statuses(only []string) []slotStatus {
	slots := map[types.NamespacedName]*slotStatus{}
	at := func(namespace, name string) *slotStatus {
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if slots[key] == nil {
			slots[key] = &slotStatus{
				Namespace: namespace, Slot: name, Kind: kindOf(name), Missing: true,
				Standbys: []standbyStatus{}, Handovers: []handover{},
			}
		}
		return slots[key]
	}
	for _, l := range o.leases {
		if l.Labels[api.ManagedLabel] != "" && api.IsSlot(l.Name) {
			at(l.Namespace, l.Name).fill(l)
		}
	}
	for _, pod := range o.pods {
		for _, slot := range claimed(*pod) {
			at(pod.Namespace, slot).join(*pod)
		}
	}
	holders := map[string]bool{}
	for _, s := range slots {
		if s.Holder != nil {
			holders[s.group()+s.Holder.Identity] = true
		}
	}
	var all []slotStatus
	for key, s := range slots {
		if only != nil && !slices.Contains(only, key.Name) {
			continue
		}
		s.Standbys = slices.DeleteFunc(s.Standbys, func(p standbyStatus) bool { return holders[s.group()+p.identity] })
		slices.SortFunc(s.Standbys, func(a, b standbyStatus) int { return strings.Compare(a.Pod, b.Pod) })
		s.Handovers = append(s.Handovers, handovers(slices.Collect(maps.Values(o.events)), key)...)
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b slotStatus) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Slot, b.Slot))
	})
	return all
}

// group returns the same key for all slots of a semaphore, or all shards of a workload. A pod
// needs only one of them. Every other slot has a key of its own.
func (s slotStatus) group() string {
	name := s.Slot
	if i := strings.LastIndexByte(name, '.'); (s.Kind == "semaphore" || s.Kind == "shards" || s.Kind == rwLock) && i > 0 {
		name = name[:i]
	}
	return s.Namespace + "/" + name + " "
}

// fill stores the facts of the Lease. The holder counts as gone until the method join
// finds its pod. A pod at a barrier is not looked for: its Lease expires if the pod is gone.
func (s *slotStatus) fill(l *coordinationv1.Lease) {
	l = l.DeepCopy()
	for key, value := range l.Annotations {
		l.Annotations[key] = oneLine(value)
	}
	s.Done = api.Done(l.Annotations[api.DoneAnnotation]).Keys()
	failures := api.Failures(l.Annotations[api.FailuresAnnotation])
	for _, key := range failures.Keys() {
		if s.Failures == nil {
			s.Failures = map[string]int{}
		}
		s.Failures[key] = failures.Count(key)
	}
	s.Missing, s.Paused, s.Yield = false, api.PauseOf(l.Annotations), l.Annotations[api.YieldAnnotation]
	s.Stamp, s.Opened = l.Annotations[api.StampAnnotation], api.Opened(l.Annotations[api.OpenedAnnotation])
	s.Successor, s.Transitions = l.Annotations[api.SuccessorAnnotation], ptr.Deref(l.Spec.LeaseTransitions, 0)
	identity := holderOf(l)
	if identity == "" {
		return
	}
	s.Holder = &holderStatus{
		Pod: api.PodOf(identity), Identity: identity, Workload: l.Annotations[api.WorkloadAnnotation],
		Hold: l.Annotations[api.HoldAnnotation], Token: l.Annotations[api.TokenAnnotation], Gone: s.Kind != atBarrier,
	}
	if l.Spec.AcquireTime != nil {
		s.Holder.Since = &l.Spec.AcquireTime.Time
	}
	if l.Spec.RenewTime != nil {
		s.Holder.Renewed = &l.Spec.RenewTime.Time
	}
	if serving, err := time.Parse(time.RFC3339, l.Annotations[api.ServingAnnotation]); err == nil {
		s.Holder.ServingSince = &serving
	}
}

// join adds a pod that claims the slot: the holder, or a standby.
func (s *slotStatus) join(pod corev1.Pod) {
	if s.Holder != nil && s.Holder.Identity == identityOf(pod) {
		s.Holder.Gone, s.Holder.Deleted = false, pod.DeletionTimestamp != nil
		return
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	if s.finished(pod) {
		return
	}
	standby := standbyStatus{Pod: pod.Name, identity: identityOf(pod), Reason: "Unknown", Message: "its agent has said nothing yet"}
	switch said, ok := condition(pod); {
	case podspec.ServesLocal(&pod.Spec):
		standby.Program, standby.Ready = true, ready(pod)
		standby.Reason, standby.Message = localReason, asksItself
	case ok:
		standby.Ready, standby.Reason, standby.Message = said.Status == corev1.ConditionTrue, oneLine(said.Reason), oneLine(said.Message)
	}
	if pod.DeletionTimestamp != nil {
		standby.Message += "; it is being deleted"
	}
	s.Standbys = append(s.Standbys, standby)
}

// kindOf returns the kind of a slot, in the words of a person.
func kindOf(slot string) string {
	kind, _, _ := strings.Cut(slot, ".")
	if kind != startLock {
		kind, _, _ = strings.Cut(kind, "-")
	}
	return kind
}

// finished reports whether a pod does not wait for the slot of a once claim, or for a start lock.
// A pod with a once claim is finished if its key is done. The pod is also finished if its init containers
// have ended, and none of its main containers waits. A pod that is Ready has started.
func (s *slotStatus) finished(pod corev1.Pod) bool {
	if said, ok := condition(pod); s.Kind == startLock {
		return ok && said.Status == corev1.ConditionTrue
	}
	key := onceKey(pod)
	if key == "" {
		return false
	}
	waits := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return api.IsShim(c.Command) })
	begun := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodInitialized && c.Status == corev1.ConditionTrue
	})
	return slices.Contains(s.Done, key) || begun && !waits
}

// onceKey returns the key of a pod's once claim from the arguments of its agent; empty
// without one. The annotation "true" has no key.
func onceKey(pod corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == api.AgentContainer {
			return api.RecallRunArgs(c.Args).OnceKey
		}
	}
	return ""
}

// healthy reports whether the slot has a holder that serves, is paused, or has neither a
// holder nor a standby. The holder of a once claim need not serve, nor does a pod at a barrier. A pod that asks by the
// local API is no standby here, because its program may want no slot.
func (s slotStatus) healthy() bool {
	serves := s.Holder != nil && (s.Holder.ServingSince != nil || s.Kind == "once" || s.Kind == atBarrier || s.Kind == rwLock) && !s.Holder.Gone
	wanted := slices.ContainsFunc(s.Standbys, func(p standbyStatus) bool { return !p.Program })
	return serves || s.Paused != "" || s.Holder == nil && !wanted
}

// possession has the slots of a read-write lock that one pod has under one hold.
type possession struct {
	slots []slotStatus
	// writes reports that the pod has all slots. The field waits reports that the pod has the intent, and
	// waits for readers.
	writes, waits bool
}

// possessions returns what each pod has of a read-write lock, writers first.
func possessions(lock []slotStatus) (all []possession) {
	for _, s := range lock {
		if s.Holder == nil {
			continue
		}
		i := slices.IndexFunc(all, func(p possession) bool {
			h := p.slots[0].Holder
			return h.Identity == s.Holder.Identity && h.Hold == s.Holder.Hold
		})
		if i < 0 {
			i, all = len(all), append(all, possession{})
		}
		all[i].slots = append(all[i].slots, s)
		all[i].waits = all[i].waits || isIntent(s.Slot)
	}
	for i := range all {
		all[i].writes = len(all[i].slots) == 1+api.RWLockSlots
		all[i].waits = all[i].waits && !all[i].writes
		// A token is a decimal number, and the program has the greatest one.
		slices.SortStableFunc(all[i].slots, func(a, b slotStatus) int {
			return cmp.Or(len(b.Holder.Token)-len(a.Holder.Token), strings.Compare(b.Holder.Token, a.Holder.Token))
		})
	}
	slices.SortStableFunc(all, func(a, b possession) int { return len(b.slots) - len(a.slots) })
	return all
}

// whole returns the slots, and with them all slots of their read-write locks.
func whole(changed, all []slotStatus) []slotStatus {
	return slices.DeleteFunc(slices.Clone(all), func(s slotStatus) bool {
		return !slices.ContainsFunc(changed, func(c slotStatus) bool {
			return c.Namespace == s.Namespace && (c.Slot == s.Slot || c.Kind == rwLock && s.group() == c.group())
		})
	})
}
