// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package view computes what people see of slots, from Leases, pods and Events: holders,
// standbys with their reasons, and handovers with their causes. The command "kubectl
// metaparticle status" and the console show the same values.
//
// The package does no I/O, and reads no clock. A node or the API server wrote each instant in an
// object. Such an instant tells people when something happened, but decides nothing.
//
// Each text from the cluster is one line of bounded length, because tenants write such texts. An
// instant that JSON cannot express is absent, and so is an Event with a longer message than agents
// write.
//
// The package does not guarantee that each handover is shown. Events get lost, and the API server
// deletes Events after an hour by default. A handover without Events is not shown.
package view

import (
	"cmp"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// Slot is one slot, as a person sees it.
type Slot struct {
	Namespace string `json:"namespace"`
	Slot      string `json:"slot"`
	// Kind is the name of the kind, as [KindOf] returns it.
	Kind   string    `json:"kind"`
	Holder *Holder   `json:"holder,omitempty"`
	Paused api.Pause `json:"paused,omitempty"`
	// Yield is a person's request that the hold ends. The release of the hold removes the
	// request.
	Yield string `json:"yield,omitempty"`
	// Stamp is the stamp of a shard's Lease, in the format of [api.Stamp]. The stamp has the number
	// of shards, the run, and the number of changes (the epoch), and may close the Lease.
	Stamp string `json:"stamp,omitempty"`
	// Successor is the identity that the last release names, until a pod holds.
	Successor string `json:"successor,omitempty"`
	// Moved is the last release of the slot, if its pods take turns.
	Moved *Moved `json:"moved,omitempty"`
	// Talk is what the pods say to each other about the end of the present hold; nil if they say nothing.
	Talk *Talk `json:"talk,omitempty"`
	// Waits is what a rollout waits for at present; nil for nothing.
	Waits *Wait `json:"waits,omitempty"`
	// Why says, in sentences for people, what the slot's next move waits for, and what a person can do.
	Why []string `json:"why,omitempty"`
	// Done are the done keys of a once claim or of a shard, the oldest first.
	Done []string `json:"done,omitempty"`
	// Opened is the number of pods for which a barrier was opened. Only the first Lease of a
	// barrier has this number.
	Opened int `json:"opened,omitempty"`
	// Failures has, for each key of a once claim, how many times in a row the work of this key has
	// failed.
	Failures map[string]int `json:"failures,omitempty"`
	// Standbys are the pods that wait for the slot. All slots that a pod claims share one Standby.
	Standbys []*Standby `json:"standbys"`
	// Transitions counts the changes of the holder since the Lease was made.
	Transitions int32 `json:"transitions"`
	// Handovers are the last handovers that Events report, the latest first.
	Handovers []Handover `json:"handovers"`
	// Missing reports that a pod claims the slot, but that enroll has not made the Lease of the
	// slot.
	Missing bool `json:"missing,omitempty"`
	// Gaps name the workloads that claim the slot, and have pods that run without a gate, or pods
	// that the API server refuses, or a pod template without the claim.
	Gaps []Gap `json:"gaps,omitempty"`
	// Findings are what a person should look at: what is wrong with the slot, its workloads and its pods.
	Findings []diagnosis.Finding `json:"findings,omitempty"`
}

// Gap is what keeps pods of a workload from competing for a slot.
type Gap struct {
	// Workload is the workload, as Kind/name.
	Workload string `json:"workload"`
	// Ungated is the number of pods that run the application whoever holds the slot.
	Ungated int `json:"ungated,omitempty"`
	// Refused is the message with which the API server last refused a pod.
	Refused string `json:"refused,omitempty"`
	// NotCarried reports that the pod template lacks the claim of the workload, so each new pod runs
	// without a gate.
	NotCarried bool `json:"notCarried,omitempty"`
}

// Holder is the pod that holds a slot.
type Holder struct {
	Pod      string `json:"pod"`
	Identity string `json:"identity"`
	// Node is the node of the pod; empty if the pod is gone.
	Node     string `json:"node,omitempty"`
	Workload string `json:"workload,omitempty"`
	Hold     string `json:"hold,omitempty"`
	Token    string `json:"token,omitempty"`
	// Gone reports that no pod has the holder's identity. Gone is also true if a client other than
	// an agent has acquired the Lease.
	Gone         bool       `json:"gone,omitempty"`
	Deleted      bool       `json:"beingDeleted,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	Renewed      *time.Time `json:"renewed,omitempty"`
	ServingSince *time.Time `json:"servingSince,omitempty"`
	// Starting reports that the holder does not serve yet, and that the hold is new ([Young]).
	Starting bool `json:"starting,omitempty"`
	// SilentSince is set if the holder does not renew the Lease. The value is the instant of the
	// last change that the caller of [State.Slots] saw.
	SilentSince *time.Time `json:"silentSince,omitempty"`
	// Expired reports that the caller of [State.Slots] saw no change of the Lease for three lease
	// durations.
	Expired bool `json:"expired,omitempty"`
	// Takeover is the text of the function [Takeover].
	Takeover string `json:"takeover,omitempty"`

	// failing is the instant since which the application runs and fails its probes; nil otherwise. After the time
	// yieldAfter it hangs; zero for never. But an application that is unserved has never passed them in this hold. The
	// field "preferred" reports that a preference names the pod, and minReady are its controller's minReadySeconds.
	failing    *time.Time
	unserved   bool
	yieldAfter time.Duration
	minReady   time.Duration
	preferred  bool
	// revision is the text of the holder's [api.Revision].
	revision   string
	supporters api.Supporters
	lasts      time.Duration
	// finding is what is wrong with the pod; nil for nothing.
	finding *diagnosis.Finding
}

// State has the objects from which the slots are computed. The method Slots ignores ungated pods,
// and Leases that are no slots.
type State struct {
	Leases []*coordinationv1.Lease
	Pods   []*corev1.Pod
	// Events are those of agents. With the Events FailedCreate of controllers, refused pods of
	// workloads other than Deployments also count.
	Events []*corev1.Event
	// Workloads are Deployments, StatefulSets, DaemonSets, Jobs and CronJobs. If Pods is older than Workloads, new
	// pods can count as ungated.
	Workloads []client.Object
	// Seen has, by the uid of each Lease, the instant at which the caller last saw that Lease
	// change. These instants, and Now, are readings of the caller's own clock. Without Seen no
	// holder counts as silent. Without Now, Events of any time count.
	Seen map[types.UID]time.Time
	Now  time.Time
	// Old reports that the latest renewals may be missing. Then a starting holder continues to
	// count as starting.
	Old bool
}

// mostClaimed bounds the number of slots that people see of one pod.
const mostClaimed = 2048

// mostMissing bounds the number of slots without a Lease that people see of one namespace. Enroll soon
// makes the Lease of each claimed slot. But a tenant can make pods that claim slots in a namespace in
// which enroll makes no Lease.
const mostMissing = 1 << 14

// Slots returns all slots with a Lease, and at most mostMissing claimed slots of each namespace that
// have none. The slots are sorted by namespace and name. The argument "only" has the names of the
// wanted slots; nil means all. Each slot has its last handovers, but not more than the given number.
func (o State) Slots(only []string, most int) []Slot {
	wanted := func(slot string) bool { return only == nil || slices.Contains(only, slot) }
	slots, leases := o.leased()
	slots.claim(o.Pods, o.Now, wanted)
	slots.man(o, wanted)
	histories := historiesOf(o.Events, o.Now, most)
	holders := map[member]bool{}
	for _, s := range slots {
		if s.Holder != nil {
			holders[member{s.Group(), s.Holder.Identity}] = true
		}
	}
	all := make([]Slot, 0, len(slots))
	for key, s := range slots {
		if !wanted(key.Name) {
			continue
		}
		group := s.Group()
		s.Standbys = slices.DeleteFunc(s.Standbys, func(p *Standby) bool { return holders[member{group, p.Identity}] })
		slices.SortFunc(s.Standbys, func(a, b *Standby) int { return strings.Compare(a.Pod, b.Pod) })
		s.remember(histories[key])
		if l := leases[key]; l != nil && api.HasNextLease(key.Name) {
			s.converse(l, leases[types.NamespacedName{Namespace: key.Namespace, Name: api.NextLease(key.Name)}], o.Now)
		}
		s.diagnose()
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Slot) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Slot, b.Slot))
	})
	return all
}

// found has the slots that a State shows, by namespace and name.
type found map[types.NamespacedName]*Slot

// leased returns the slots with a Lease, and their holders. The second result has the Leases of the slots that
// have a next Lease, and these next Leases.
func (o State) leased() (found, map[types.NamespacedName]*coordinationv1.Lease) {
	slots, leases := found{}, map[types.NamespacedName]*coordinationv1.Lease{}
	for _, l := range o.Leases {
		if l.Labels[api.ManagedLabel] == "" {
			continue
		}
		if api.IsNextLease(l.Name) || api.HasNextLease(l.Name) {
			leases[types.NamespacedName{Namespace: l.Namespace, Name: l.Name}] = l
		}
		if !api.IsSlot(l.Name) {
			continue
		}
		s := slots.at(l.Namespace, l.Name)
		s.fill(l, o.Now, o.Old)
		if seen, ok := o.Seen[l.UID]; ok && s.Holder != nil && s.Kind != Barrier && !Silent(l, seen).After(o.Now) {
			s.Holder.SilentSince = instant(seen)
			s.Holder.Expired = !Expired(l, seen).After(o.Now)
		}
	}
	return slots, leases
}

// claim adds each pod to the slots that the pod claims. The method also adds wanted slots without a
// Lease, but at most mostMissing for each namespace. Enroll makes no Lease for a pod that has ended.
func (f found) claim(pods []*corev1.Pod, now time.Time, wanted func(slot string) bool) {
	missing, holding := map[string]int{}, map[string]bool{}
	for _, s := range f {
		if s.Holder != nil {
			holding[s.Holder.Identity] = true
		}
	}
	for _, pod := range pods {
		claimed := Claimed(*pod)
		if len(claimed) == 0 {
			continue
		}
		exists := func(slot string) bool {
			s := f[types.NamespacedName{Namespace: pod.Namespace, Name: slot}]
			return s != nil && !s.Missing
		}
		c := claimantOf(pod, diagnosis.Leases{Held: holding[IdentityOf(*pod)], Missing: diagnosis.Missing(pod, exists)}, now)
		for _, slot := range claimed[:min(len(claimed), mostClaimed)] {
			s := f[types.NamespacedName{Namespace: pod.Namespace, Name: slot}]
			if s == nil && c.standby != nil && wanted(slot) && missing[pod.Namespace] < mostMissing {
				missing[pod.Namespace]++
				s = f.at(pod.Namespace, slot)
			}
			if s != nil {
				s.join(c)
			}
		}
	}
}

// at returns the slot of that name, and makes the slot if there is none.
func (f found) at(namespace, name string) *Slot {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if f[key] == nil {
		f[key] = &Slot{
			Namespace: namespace, Slot: name, Kind: KindOf(name), Missing: !IsMistake(name),
			Standbys: []*Standby{}, Handovers: []Handover{},
		}
	}
	return f[key]
}

// Mistake is the kind of what is no slot: an annotation with a mistake by which workloads mean to claim. Its
// name is the key of the annotation, because nobody knows the slot.
const Mistake = "mistake"

// IsMistake reports whether the name of a [Slot] is the key of an annotation.
func IsMistake(slot string) bool { return strings.HasPrefix(slot, api.Prefix) }

// member is a pod that holds a slot of a group (see [Slot.Group]).
type member struct{ group, identity string }

// Group returns the same key for all slots of a semaphore or a read-write lock, or for all shards
// of a workload. A slot that belongs to no such group has a key of its own. A pod that holds one
// slot of a group is no standby for the other slots of the group.
func (s Slot) Group() string {
	name := s.Slot
	if i := strings.LastIndexByte(name, '.'); (api.AnyOne(name) || s.Kind == RWLock) && i > 0 {
		name = name[:i]
	}
	return s.Namespace + "/" + name + " "
}

// fill stores the facts of the Lease. The holder counts as gone until the method "join" finds its
// pod. The holder of a barrier's Lease never counts as gone: the Lease expires if the pod is gone.
func (s *Slot) fill(l *coordinationv1.Lease, now time.Time, old bool) {
	note := func(key string) string { return api.Shortened(l.Annotations[key], Notes[key]) }
	s.Done = api.Done(note(api.DoneAnnotation)).Keys()
	failures := api.Failures(note(api.FailuresAnnotation))
	for _, key := range failures.Keys() {
		if s.Failures == nil {
			s.Failures = map[string]int{}
		}
		s.Failures[key] = failures.Count(key)
	}
	s.Missing, s.Paused = false, api.Pause(api.Shortened(string(api.PauseOf(l.Annotations)), MaxWord))
	s.Yield, s.Stamp = note(api.YieldAnnotation), note(api.StampAnnotation)
	s.Successor, s.Opened = note(api.SuccessorAnnotation), api.Opened(l.Annotations[api.OpenedAnnotation])
	s.Transitions = ptr.Deref(l.Spec.LeaseTransitions, 0)
	identity := api.Shortened(HolderOf(l), MaxIdentity)
	_, person := api.PersonOf(identity)
	if identity == "" {
		return
	}
	s.Holder = &Holder{
		Pod: api.PodOf(identity), Identity: identity, Workload: note(api.WorkloadAnnotation),
		Hold: note(api.HoldAnnotation), Token: note(api.TokenAnnotation), Gone: s.Kind != Barrier && !person,
		revision: note(api.RevisionAnnotation), supporters: supportersOf(l), Takeover: Takeover(l),
		lasts: time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second,
	}
	if l.Spec.AcquireTime != nil {
		s.Holder.Since = instant(l.Spec.AcquireTime.Time)
	}
	if l.Spec.RenewTime != nil {
		s.Holder.Renewed = instant(l.Spec.RenewTime.Time)
	}
	if serving, err := time.Parse(time.RFC3339, l.Annotations[api.ServingAnnotation]); err == nil {
		s.Holder.ServingSince = instant(serving)
	}
	if old && l.Spec.RenewTime != nil {
		now = l.Spec.RenewTime.Time
	}
	s.Holder.Starting = s.Holder.ServingSince == nil && s.serves() && Young(l, now)
}

// A new holder counts as starting for the lease duration divided by startShare, but at most for the
// time startsWithin. If the last renewal is a lease duration old, or as old as startsWithin, the
// holder does not count as starting.
const (
	startShare   = 3
	startsWithin = time.Minute
)

// Young reports whether the Lease shows a new hold that the holder renews. The age of the hold
// comes from two instants of the holder's clock. By the caller's clock, the last renewal may be
// almost a lease duration old, but never as old as startsWithin. So clocks that differ by a few
// seconds cause no error.
func Young(l *coordinationv1.Lease, now time.Time) bool {
	if l.Spec.AcquireTime == nil || l.Spec.RenewTime == nil {
		return false
	}
	duration := time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second
	age := l.Spec.RenewTime.Sub(l.Spec.AcquireTime.Time)
	return age >= 0 && age < min(duration/startShare, startsWithin) && now.Sub(l.Spec.RenewTime.Time) < min(duration, startsWithin)
}

// serves reports, by the slot's kind, whether a holder states in the Lease since when its
// application serves. The holder of a once claim, a read-write lock or a barrier never does so.
func (s *Slot) serves() bool { return s.Kind != Once && s.Kind != Barrier && s.Kind != RWLock }

// join adds a pod that claims the slot: the holder, or a standby. A pod that has ended is no
// standby, and neither is a pod for which [Slot.finished] returns true.
func (s *Slot) join(c claimant) {
	switch {
	case s.Holder != nil && s.Holder.Identity == c.identity:
		s.Holder.Gone, s.Holder.Deleted, s.Holder.Node = false, c.deleted, c.node
		s.Holder.failing, s.Holder.unserved, s.Holder.finding = c.failing, c.unserved, c.finding
		s.Holder.yieldAfter, s.Holder.minReady, s.Holder.preferred = c.args.YieldAfter, c.args.MinReady, c.preferred()
	case c.standby != nil && !s.finished(c):
		s.Standbys = append(s.Standbys, c.standby)
	}
}

// Silent returns the instant at which the holder counts as silent if its Lease has not changed
// since the instant "seen". A holder renews six times in a lease duration, so two or three renewals
// are missing after half of that duration.
func Silent(l *coordinationv1.Lease, seen time.Time) time.Time {
	return seen.Add(time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second / 2)
}

// Expired returns the instant at which a hold counts as expired if its Lease has not changed since
// the instant "seen". Three lease durations are enough even if the console's own watch was
// interrupted.
func Expired(l *coordinationv1.Lease, seen time.Time) time.Time {
	return seen.Add(3 * time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second)
}

// remember adds the facts that only Events tell.
func (s *Slot) remember(h history) {
	s.Handovers = append(s.Handovers, h.handovers...)
	// The Lease counts each change of the holder. Events of earlier changes may be gone.
	if last := len(s.Handovers) - 1; last >= 0 && h.acquired == last+1 && s.Transitions > 0 && int(s.Transitions) <= h.acquired {
		s.Handovers[last].First = s.Handovers[last].From == ""
	}
	for i, p := range s.Standbys {
		if at, ok := h.released[p.uid]; ok && p.WaitsSince != nil && at.After(*p.WaitsSince) {
			other := *p
			other.WaitsSince = &at
			s.Standbys[i] = &other
		}
	}
}

// finished reports whether a pod has stopped waiting for the slot of a once claim or a start lock.
// A pod with a start lock is finished once its application has started. A pod with a once claim is
// finished once its key is done. Such a pod is also finished if none of its containers waits for the
// key any more.
func (s *Slot) finished(c claimant) bool {
	if s.Kind == startLock {
		return c.started
	}
	return c.args.OnceKey != "" && (c.past || slices.Contains(s.Done, c.args.OnceKey))
}

// Healthy reports whether the slot needs no attention. The slot is healthy if the holder is not
// gone, serves or is starting, and has not let the Lease expire. The slot is also healthy if the
// slot is paused, or has neither a holder nor a standby. The holder of a once claim, a read-write
// lock or a barrier always counts as serving. A pod with the local API is no standby here, because
// its program may want no slot. A slot with a gap always needs attention.
func (s Slot) Healthy() bool {
	serves := s.Holder != nil && (s.Holder.ServingSince != nil || s.Holder.Starting || !s.serves()) && !s.Holder.Gone && !s.Holder.Expired
	_, wanted := s.wanting()
	return len(s.Gaps) == 0 && (serves || s.Paused != "" || s.Holder == nil && wanted == 0)
}

// These limits bound the bytes of a text that pods or their owners write. Agents write shorter
// texts. The console's caches use the same limits.
const (
	// MaxMessage bounds the message of an Event or of a pod condition, and the cause of a handover.
	MaxMessage = diagnosis.MaxMessage
	// MaxIdentity bounds a text with an identity: the name of a pod, and its uid.
	MaxIdentity = 320
	// MaxWord bounds every other text.
	MaxWord = diagnosis.MaxWord
	// maxDone and maxFailures bound a list of done keys, and a list of failures.
	maxDone, maxFailures = 4096, 1024
	// MaxWords bounds the words of a next Lease, and what a Lease tells of a rollout.
	MaxWords = 4096
	// MaxSlots bounds the list of the slots that a pod claims: 2048 slots, of 31 bytes each.
	MaxSlots = 64 << 10
)

// Notes has the annotations of Leases that this package reads, each with the largest number of
// bytes. A longer text is cut.
var Notes = map[string]int{
	api.DoneAnnotation: maxDone, api.FailuresAnnotation: maxFailures, api.PausedAnnotation: MaxWord, api.YieldAnnotation: MaxIdentity,
	api.StampAnnotation: MaxWord, api.OpenedAnnotation: MaxWord, api.SuccessorAnnotation: MaxIdentity, api.WorkloadAnnotation: MaxIdentity,
	api.HoldAnnotation: MaxWord, api.TokenAnnotation: MaxWord, api.ServingAnnotation: MaxWord,
	api.LeavingAnnotation: 2 * MaxIdentity, api.RolloutAnnotation: MaxWords, api.RevisionAnnotation: MaxWord,
	api.SupportersAnnotation: (2 + api.MostSupporters) * MaxIdentity,
}

// instant returns an instant that another computer wrote, in UTC; nil if JSON cannot express it.
func instant(at time.Time) *time.Time {
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return &at
}
