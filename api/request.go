// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request has everything that a pod's annotations ask for. The zero value asks for nothing.
type Request struct {
	// Claimed are the claims, in the order of [Annotations]. The claims of one annotation are
	// sorted by their text, without duplicates.
	Claimed []Claim
	// Containers are the gated containers by name; empty means the default of
	// [ContainersAnnotation]. This annotation names the containers for all claims of the pod.
	Containers []string
	// Settings has the zero value of each setting whose annotation the pod lacks.
	Settings
	// EndpointDelay is nil if the pod lacks [EndpointDelayAnnotation].
	EndpointDelay *time.Duration
	// OnLoss is empty if the pod lacks [OnLossAnnotation].
	OnLoss OnLoss
	// Ports are the ports that standbys forward; empty if the pod lacks [PortsAnnotation].
	Ports Ports
	// OnAPILoss is empty if the pod lacks [OnAPILossAnnotation].
	OnAPILoss OnAPILoss
	// After are the conditions that must be met before the pod competes for its slots. For a pod
	// without claims, the conditions must be met before the application starts. The conditions
	// are sorted by their text, without duplicates.
	After []Condition
	// Barrier is the barrier at which the pod waits, after its conditions and before it competes
	// for its slots. The zero value means that the pod has no barrier.
	Barrier Barrier
	// Gate is empty if the pod has neither [GateAnnotation] nor [LocalAnnotation].
	Gate Gate
	// OptOut reports that the annotation "inject" has the value "false".
	OptOut bool
}

// Claims reports whether the request has at least one claim.
func (r Request) Claims() bool { return len(r.Claimed) > 0 }

// Injects reports whether the pod needs an injected container: the pod claims, or has
// conditions or a barrier.
func (r Request) Injects() bool { return r.Claims() || len(r.After) > 0 || r.Barrier.Size > 0 }

// StartsInTurn reports whether the pod has a start lock.
func (r Request) StartsInTurn() bool {
	return slices.ContainsFunc(r.Claimed, func(c Claim) bool { return c.Kind.UntilReady })
}

// forLife returns the claims whose slots the pod holds for as long as its application runs.
func (r Request) forLife() []Claim {
	return slices.DeleteFunc(slices.Clone(r.Claimed), func(c Claim) bool { return c.Kind.UntilReady })
}

// StartsOnly reports whether the pod has a start lock, and no other claim. Once its application
// is ready, the pod holds no slot.
func (r Request) StartsOnly() bool { return r.StartsInTurn() && len(r.forLife()) == 0 }

// BarrierDuration returns the duration of the Lease by which the pod arrives at its barrier.
func (r Request) BarrierDuration() time.Duration {
	return cmp.Or(r.LeaseDuration, DefaultLeaseDuration)
}

// MetBySelf returns the first condition that waits for one of the pod's own slots, or for the
// success of the pod's own key. A pod with such a condition would wait for itself.
func (r Request) MetBySelf(slots []string, key string) (Condition, bool) {
	i := slices.IndexFunc(r.After, func(c Condition) bool {
		own := slices.ContainsFunc(slots, c.reads)
		return own && (c.Key == "" || c.Key == key)
	})
	if i < 0 {
		return Condition{}, false
	}
	return r.After[i], true
}

// Condition names a Lease, and the state that the Lease must show before a pod starts. For
// a condition, a pod only reads the Lease.
type Condition struct {
	// Lease is the name of a slot's Lease, in the namespace of the pod. For all shards of a
	// workload, Lease is the part that the names of their Leases share.
	Lease string
	// Key is the key of a once claim, which must be done. For shards, Key is the run, and an empty
	// Key stands for the run that the stamps name. For every other slot, Key is empty, and the
	// holder of the slot must serve.
	Key string
	// Opened is the number of pods that the record of an open barrier must state; zero for other
	// conditions. If Opened is not zero, Lease is the first Lease of the barrier. Only the wait at
	// a barrier sets Opened.
	Opened int
}

// The method "reads" reports whether a pod reads the slot's Lease for the condition.
func (c Condition) reads(slot string) bool {
	shard, ok := strings.CutPrefix(slot, c.Lease+".")
	return slot == c.Lease || ok && strings.HasPrefix(c.Lease, shardPrefix) && !strings.Contains(shard, ".")
}

// String returns the text of the condition, as a person writes it.
func (c Condition) String() string {
	if c.Key == "" {
		return c.Lease
	}
	return c.Lease + "=" + c.Key
}

// Barrier is the barrier of a pod. No pod of the run, which is a Job, goes on before Size pods
// have arrived.
type Barrier struct {
	Name string
	// Size is the number of pods that must arrive.
	Size int
}

// String returns the text of the barrier, as a person writes it.
func (b Barrier) String() string { return b.Name + "=" + strconv.Itoa(b.Size) }

// Preference is a label. Pods with this label are preferred as the holder.
type Preference struct{ Key, Value string }

// Failsafe is the outage of the API server that the application of a holder is to survive.
type Failsafe struct {
	// Outage is the longest such outage; zero for what [Budget.Outage] gives.
	Outage time.Duration
	// Alone reports that the workload has one replica, so that nobody waits for the slot of a dead holder.
	// Otherwise the holder needs the promises of standbys ([Supporters]).
	Alone bool
}

// Budget returns the budget of a holder with this lease duration. The errors are those of [NewBudget] and
// [Budget.Failsafe].
func (f Failsafe) Budget(lease time.Duration) (Budget, error) {
	b, err := NewBudget(lease)
	switch {
	case err != nil || f == (Failsafe{}):
		return b, err
	case f.Alone:
		return b.Failsafe(f.Outage)
	}
	return b.WithSupporters(f.Outage)
}

// Stated returns the longest duration that a holder with this lease duration writes into its Lease: the lease
// duration itself for the zero value, and the longest duration for values that the webhook refuses.
func (f Failsafe) Stated(lease time.Duration) time.Duration {
	if f == (Failsafe{}) {
		return lease
	}
	b, err := f.Budget(cmp.Or(lease, DefaultLeaseDuration))
	if err != nil {
		return MaxLeaseDuration
	}
	return b.Longest()
}

// String returns the text of the outage, as a person writes it.
func (f Failsafe) String() string {
	if f.Alone {
		return f.Outage.String() + "," + failsafeAlone
	}
	return f.Outage.String()
}

// String returns the text of the preference, as a person writes it.
func (p Preference) String() string { return p.Key + "=" + p.Value }

// OnLoss selects how a container goes on after its pod has lost or yielded the slot.
type OnLoss string

const (
	// OnLossStandby stands by again in the same container (the default).
	OnLossStandby OnLoss = "standby"
	// OnLossRestart ends the container, so that a fresh one stands by.
	OnLossRestart OnLoss = "restart"
	// OnLossEnd ends the container for good. An annotation cannot select OnLossEnd: the webhook
	// writes it for a container that the kubelet does not restart.
	OnLossEnd OnLoss = "end"
)

// OnAPILoss selects what happens to the programs of a pod when a hold of the local API ends and no
// program has given it back.
type OnAPILoss string

const (
	// OnAPILossTell tells the program of the loss, and stops nothing (the default).
	OnAPILossTell OnAPILoss = "tell"
	// OnAPILossKill kills all programs of the pod's gated containers, before another pod can
	// acquire the slot.
	OnAPILossKill OnAPILoss = "kill"
)

// OnBusy selects what a pod does while another pod holds the slot.
type OnBusy string

const (
	// OnBusyWait waits for the slot (the default).
	OnBusyWait OnBusy = "wait"
	// OnBusySkip ends the waiting containers with exit code 0.
	OnBusySkip OnBusy = "skip"
)

// BoundsWaits reports whether the pod may end before its application has run, because
// another pod holds the slot.
func (r Request) BoundsWaits() bool { return r.OnBusy == OnBusySkip || r.WaitAtMost > 0 }

// Readiness selects whether standbys are Ready for Services and rollouts.
type Readiness string

const (
	// ReadinessForward (the default) makes a standby Ready while a holder serves and
	// answers the standby. The standby forwards its ports to the holder.
	ReadinessForward Readiness = "forward"
	// ReadinessHolder makes the holder alone Ready.
	ReadinessHolder Readiness = "holder"
	// ReadinessAll makes each standby Ready. No annotation selects ReadinessAll: the webhook
	// writes it for pods with shards, if these pods declare no ports.
	ReadinessAll Readiness = "all"
)

// Gate selects the mechanism that keeps a standby's application from running or serving.
type Gate string

const (
	// GateContainer (the default) is a shim in each gated container.
	GateContainer Gate = "container"
	// GatePod lets the kubelet start the application's containers once the pod holds the
	// slot, and restart all containers once the slot is lost.
	GatePod Gate = "pod"
	// GateReadiness lets the application run in every pod; the holder alone is Ready.
	GateReadiness Gate = "readiness"
	// GateProgram holds no container back: the program itself asks for its slots by the local
	// API. [LocalAnnotation] selects GateProgram, and [GateAnnotation] cannot.
	GateProgram Gate = "program"
)

// Shims reports whether the gate consists of shims in the containers.
func (r Request) Shims() bool { return r.Gate == "" || r.Gate == GateContainer }

// TakesTurns reports whether pods of different revisions take turns. An old pod can then give its
// slot to a new pod, and get the slot back. Pods take no turns if their gate is outside of the
// containers, or if a start lock is their only claim. Pods also take no turns if a claim other
// than a start lock has a kind without turns.
func (r Request) TakesTurns() bool {
	return r.Shims() && !r.StartsOnly() && !slices.ContainsFunc(r.forLife(), func(c Claim) bool { return !c.Kind.TakesTurns })
}

// Standbys returns the readiness of standbys. If a claim may have several holders, only
// holders are Ready, because a standby has no single address to forward to. Without shims,
// no standby can be Ready, either. With the gate "pod" the kubelet has not started the main
// containers, and with the gate "readiness" the standby's application must not serve. A pod
// with a start lock alone has no holder to forward to.
func (r Request) Standbys() Readiness {
	several := slices.ContainsFunc(r.forLife(), func(c Claim) bool { return !c.Kind.Forwards })
	switch {
	case several || r.StartsOnly() || !r.Shims():
		return ReadinessHolder
	case r.Readiness == "":
		return ReadinessForward
	}
	return r.Readiness
}

// Duration returns the lease duration of the pod's claims.
func (r Request) Duration() time.Duration {
	if r.LeaseDuration == 0 && len(r.Claimed) > 0 {
		return r.Claimed[0].Kind.duration()
	}
	return cmp.Or(r.LeaseDuration, DefaultLeaseDuration)
}

// Any reports whether the pod needs only one of its slots to run, whichever is free. The result is
// false if the pod needs all of its slots.
func (r Request) Any() bool {
	return slices.ContainsFunc(r.Claimed, Claim.any)
}

// Within returns the first claim of the scope, if there is one.
func (r Request) Within(scope Scope) (Claim, bool) {
	return r.first(func(c Claim) bool { return c.Scope() == scope })
}

func (r Request) first(is func(Claim) bool) (Claim, bool) {
	i := slices.IndexFunc(r.Claimed, is)
	if i < 0 {
		return Claim{}, false
	}
	return r.Claimed[i], true
}

// Once returns the pod's once claim, if there is one.
func (r Request) Once() (Claim, bool) {
	return r.first(func(c Claim) bool { return c.Kind.UntilSuccess })
}

// Shards returns the number of shards of the pod's work; zero for a pod without shards.
func (r Request) Shards() int {
	c, _ := r.first(func(c Claim) bool { return c.Kind == Shards })
	return c.Size
}

// Slots returns the names of the Leases that a pod of the workload claims, in the
// order in which every agent acquires them.
func (r Request) Slots(of Workload) []string {
	var slots []string
	for _, c := range r.Claimed {
		slots = append(slots, c.Slots(of)...)
	}
	slices.Sort(slots)
	return slots
}
