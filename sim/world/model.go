// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// model provides the guarantees of package enroll, in one step and without a cache.
// Each claimed slot has a Lease, and the pods' account has the right to use the Lease.
// Package sim/enrolled replaces the model by the real enroll.
type model struct {
	*Enroller
	stamper stamper
}

// ModelOfEnroll returns the model, for a world without the real enroll.
func ModelOfEnroll(e *Enroller) Reconciler {
	return model{e, stamper{Enroller: e, seen: map[string]sighting{}, gone: map[string]time.Duration{}}}
}

// Namespace implements Reconciler.
func (m model) Namespace(ctx context.Context, _ string) (time.Duration, error) {
	again, err := m.provide()
	if err != nil || m.w.Sharded == 0 {
		return again, err
	}
	return m.stamper.stamp(ctx)
}

// provide gives the pods their Leases and rights.
func (m model) provide() (time.Duration, error) {
	if !m.Enter() {
		return 0, engine.ErrDead
	}
	defer m.Leave()
	if m.w.API.Away {
		return 0, apiserver.ErrUnreachable
	}
	var slots []string
	for _, p := range m.w.Pods {
		if p.Object {
			slots = append(slots, p.claimed()...)
		}
	}
	for _, p := range m.w.Locals {
		slots = append(slots, p.Slots()...)
	}
	for _, of := range m.w.Gathered {
		if len(of.Pods) > 0 {
			slots = append(slots, of.Leases...)
		}
	}
	slices.Sort(slots)
	slots = slices.Compact(slots)
	for _, slot := range slots {
		m.presentNext(slot)
		m.present(slot)
	}
	m.stamper.forget(slots)
	m.grant(slots)
	m.grantReads()
	return 0, nil
}

// present creates the slot's Lease if there is none. The first Lease of a slot is free. A
// later Lease of the slot has an unknown holder, and the longest lease duration of all pods that
// ever claimed the slot. So all pods wait for this duration.
func (m model) present(slot string) {
	before, known := m.w.remembered[slot]
	longest := before
	for _, p := range m.w.Pods {
		if p.Object && slices.Contains(p.claimed(), slot) {
			longest = max(longest, p.Duration)
		}
	}
	for _, p := range m.w.Locals {
		if slices.Contains(p.Slots(), slot) {
			longest = max(longest, p.Duration)
		}
	}
	for _, of := range m.w.Gathered {
		if slices.Contains(of.Leases, slot) {
			longest = max(longest, of.Duration)
		}
	}
	m.w.remembered[slot] = longest
	if _, ok := m.w.API.Lease(slot); ok {
		return
	}
	holder := ""
	if known {
		holder = Unknown
	}
	m.create("Lease", slot, map[string]any{"spec": map[string]any{
		"holderIdentity": holder, "leaseDurationSeconds": int(longest / time.Second), "leaseTransitions": 0,
	}})
}

// presentNext creates the slot's next Lease if there is none. The next Lease has no holder,
// because no pod asks yet.
func (m model) presentNext(slot string) {
	next := api.NextLease(slot)
	if _, ok := m.w.API.Lease(next); !ok && api.HasNextLease(slot) {
		m.create("Lease", next, map[string]any{"spec": map[string]any{}})
	}
}

// grant writes and binds a Role. For each slot that a pod ever claimed, the Role names the Lease
// and the next Lease.
func (m model) grant(slots []string) {
	missing := func(slot string) bool {
		return !m.w.API.Granted(RoleName, "get", slot)
	}
	if !slices.ContainsFunc(slots, missing) {
		return
	}
	names := slots
	for slot := range m.w.remembered {
		names = append(names, slot)
		if api.HasNextLease(slot) {
			names = append(names, api.NextLease(slot))
		}
	}
	slices.Sort(names)
	m.bind(RoleName, slices.Compact(names), "get", "watch", "update")
}

// grantReads writes and binds a Role that names the Leases of all conditions.
func (m model) grantReads() {
	names := slices.Sorted(maps.Keys(m.w.Read))
	if slices.ContainsFunc(names, func(lease string) bool { return !m.w.API.Granted(ConditionRoleName, "get", lease) }) {
		m.bind(ConditionRoleName, names, "get", "watch")
	}
}

// bind writes the Role, and its RoleBinding.
func (m model) bind(name string, leases []string, verbs ...string) {
	m.create("Role", name, map[string]any{"rules": []apiserver.Rule{{
		APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: leases, Verbs: verbs,
	}}})
	m.create("RoleBinding", name, map[string]any{})
}

// create stores an object, and replaces an earlier object of the same kind and name.
func (m model) create(kind, name string, body map[string]any) {
	body["kind"] = kind
	apiserver.Metadata(body)["labels"] = map[string]any{api.ManagedLabel: "true"}
	raw := apiserver.Encode(body)
	_, err := m.w.API.Create(m.Name, kind, name, raw)
	if err != nil {
		_, err = m.w.API.Put(m.Name, kind, name, raw)
	}
	engine.Must(err)
}
