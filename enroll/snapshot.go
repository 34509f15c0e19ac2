// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
)

// right names a Role's right on a Lease. If the field "role" is empty, the value names the Lease
// itself, together with the rights of all Roles on that Lease.
type right struct{ lease, role string }

// snapshot is the state of a namespace in the caches.
type snapshot struct {
	namespace string
	optedIn   bool
	wanted    claims
	awaited   needs
	used      needs
	shards    shardedGroups
	workloads []workload
	// leases are the Leases that enroll made, by name.
	leases   map[string]*coordinationv1.Lease
	roles    *agentRoles
	bindings []rbacv1.RoleBinding
}

// coverage tells which pods of a namespace the webhook gates.
type coverage int

const (
	// coversNone means that the webhook gates no pod of the namespace. Then claims and conditions of
	// its pods have no effect.
	coversNone coverage = iota
	// coversGated means that the namespace has not opted in. Then only pods that already have a gate
	// count.
	coversGated
	// coversAll means that the namespace has opted in.
	coversAll
)

// snapshot reads the state of a namespace from the caches.
func (s store) snapshot(ctx context.Context, namespace string, covers coverage) (*snapshot, error) {
	optedIn := covers == coversAll
	seen := &snapshot{
		namespace: namespace, optedIn: optedIn, wanted: claims{}, awaited: needs{}, used: needs{}, shards: shardedGroups{},
	}
	var err error
	if covers != coversNone {
		err = s.cachedPods(ctx, namespace, func(pod *corev1.Pod) {
			seen.wanted.addPod(pod, optedIn)
			seen.wanted.addBarriers(pod)
			account := pod.Spec.ServiceAccountName
			seen.awaited.add(pod, account, awaitedBy(pod))
			if claimFieldsOf(pod).counts(optedIn) {
				seen.used.add(pod, account, variablesOf(pod))
				seen.shards.addPod(pod)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if optedIn {
		if seen.workloads, err = s.workloads(ctx, namespace); err != nil {
			return nil, err
		}
		seen.addWorkloads()
	}
	if seen.leases, err = s.leases(ctx, namespace); err != nil {
		return nil, err
	}
	if seen.roles, err = s.cachedRoles(ctx, namespace); err != nil {
		return nil, err
	}
	if seen.bindings, err = s.bindings(ctx, namespace); err != nil {
		return nil, err
	}
	seen.roles.markBound(seen.bindings)
	return seen, nil
}

// addWorkloads adds the claims, the conditions and the Variables of the pods that workloads are
// going to create.
func (s *snapshot) addWorkloads() {
	for _, w := range s.workloads {
		request, err := api.Parse(w.effective())
		if err != nil {
			continue
		}
		s.wanted.addWorkload(w, request)
		s.shards.addWorkload(w, request)
		s.awaited.add(w.object, w.template.Spec.ServiceAccountName, leasesOf(request.After))
		s.used.add(w.object, w.template.Spec.ServiceAccountName, request.Variables())
	}
}

// complete reports whether the slot lacks nothing for the given accounts, as [snapshot.sufficient]
// judges. Without these accounts, the slot needs a Lease only if a Role names the Lease. An agent
// may have held such a Lease, so enroll makes the Lease again, with the holder [Unknown].
func (s *snapshot) complete(slot string, accounts map[string]string) bool {
	lease := s.leases[slot]
	if lease == nil {
		return len(accounts) == 0 && !s.roles.named(slot)
	}
	return s.sufficient(lease, accounts)
}

// sufficient reports whether each of the accounts may write the Lease of a claimed slot. If the
// slot needs a next Lease, that Lease must exist, too. The account's Role must be bound, and must
// name this very Lease. The Role must also remember the longest lease duration that a claim of the
// slot names, or that any Role remembers.
func (s *snapshot) sufficient(lease *coordinationv1.Lease, accounts map[string]string) bool {
	if api.HasNextLease(lease.Name) && s.leases[api.NextLease(lease.Name)] == nil {
		return false
	}
	m := memory{Seconds: max(s.roles.longest[lease.Name], seconds(s.wanted[lease.Name].duration)), UID: lease.UID}
	for key := range accounts {
		at := s.roles.of(key, lease.Name)
		if len(at) == 0 || slices.ContainsFunc(at, func(known *agentRole) bool {
			return !known.sound || !known.bound || known.memories[lease.Name] != m
		}) {
			return false
		}
	}
	return true
}

// belonging returns the next Leases of all known slots. A slot is known if a pod or a workload
// claims the slot, a Role names the slot, or the cache has the slot's Lease. Enroll sweeps each of
// these next Leases together with its slot.
func (s *snapshot) belonging() map[string]bool {
	belonging := make(map[string]bool, len(s.wanted))
	add := func(slot string) {
		if api.HasNextLease(slot) {
			belonging[api.NextLease(slot)] = true
		}
	}
	for slot := range s.wanted {
		add(slot)
	}
	for _, slots := range []iter.Seq[string]{maps.Keys(s.roles.longest), maps.Keys(s.leases)} {
		for slot := range slots {
			if s.wanted[slot] == nil {
				add(slot)
			}
		}
	}
	return belonging
}

// unclaimed returns the Leases that no pod and no workload claims, and the next Leases without a
// slot. The result also has Leases that no longer exist, if a Role still names them. Of a Lease
// that is still claimed, the function returns the rights of accounts that no longer claim it. A
// paused Lease stays with its rights, so the pause outlives all pods and workloads. A Lease with
// done keys stays, because work that is done must not run again, but the rights on that Lease are
// unclaimed. If the done keys are revisions, the Lease is unclaimed, because the revisions end with
// the workload. The record of an open barrier stays while the Job lives.
func (s *snapshot) unclaimed() map[right]*coordinationv1.Lease {
	unclaimed := map[right]*coordinationv1.Lease{}
	belonging := s.belonging()
	for name, lease := range s.leases {
		if s.wanted[name] == nil && !belonging[name] && !stays(lease) {
			unclaimed[right{lease: name}] = lease
		}
	}
	for _, known := range s.roles.all {
		for name := range known.memories {
			c := s.wanted[name]
			switch {
			case c == nil && recorded(s.leases[name]):
				unclaimed[right{lease: name, role: known.role.Name}] = nil
			case c == nil && stays(s.leases[name]):
			case c == nil:
				unclaimed[right{lease: name}] = s.leases[name]
			case c.accounts[known.key] == "":
				unclaimed[right{lease: name, role: known.role.Name}] = nil
			}
		}
	}
	return unclaimed
}

// paused returns for each value of [api.Pause] how many slots have this pause. A value that this
// version does not know has the effect of [api.PauseHold], and counts as that pause.
func (s *snapshot) paused() map[api.Pause]int {
	slots := map[api.Pause]int{}
	for name, lease := range s.leases {
		pause := api.PauseOf(lease.Annotations)
		if pause == "" || !api.IsSlot(name) {
			continue
		}
		if !pause.Known() {
			pause = api.PauseHold
		}
		slots[pause]++
	}
	return slots
}

// stays reports whether enroll keeps an unclaimed Lease. Enroll keeps the Lease if a person has
// paused the slot, or if [recorded] returns true.
func stays(lease *coordinationv1.Lease) bool {
	return lease != nil && api.PauseOf(lease.Annotations) != "" || recorded(lease)
}

// recorded reports whether a Lease that is not paused has done keys, or the record of an open
// barrier. Done keys do not count in the Lease of a once claim without a name. The record of a
// barrier counts only in a Lease that the garbage collector deletes after the Job.
func recorded(lease *coordinationv1.Lease) bool {
	if lease == nil || api.PauseOf(lease.Annotations) != "" {
		return false
	}
	done := lease.Annotations[api.DoneAnnotation] != "" && !api.IsRevisionSlot(lease.Name)
	return done || api.Opened(lease.Annotations[api.OpenedAnnotation]) > 0 && len(lease.OwnerReferences) > 0
}

// sweepAfter returns the time for which a Lease must not change before enroll sweeps
// it. A holder that has not renewed for that long has stopped the application.
func (s *snapshot) sweepAfter(name string) time.Duration {
	d := s.roles.duration(name)
	if lease := s.leases[name]; lease != nil {
		d = max(d, time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0))*time.Second)
	}
	if d == 0 {
		return api.DurationOf(name)
	}
	return d
}
