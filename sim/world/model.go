// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// model carries out the decisions of package enroll/step in one step and without a cache: its facts
// are those of the world at this instant. Only stamps go over the network, so other processes may write
// between the list of the Leases and a write. Package sim/enrolled replaces the model by the real
// enroll, with its requests, its caches, and Roles of several accounts.
//
// Only the model can be confused ([Enroller.Believes]). A person who deletes its Role does not make it
// forget the slots.
type model struct {
	*Enroller
	unclaimed, shut step.Sightings
}

// ModelOfEnroll returns the model, for a world without the real enroll.
func ModelOfEnroll(e *Enroller) Reconciler { return &model{Enroller: e} }

// Namespace implements Reconciler.
func (m *model) Namespace(ctx context.Context, _ string) (time.Duration, error) {
	again, err := m.provide()
	if err != nil || m.w.Sharded == 0 {
		return again, err
	}
	next, err := m.stamp(ctx)
	return step.Sooner(again, next), err
}

// provide gives the pods their Leases and rights, and sweeps those that no pod claims.
func (m *model) provide() (time.Duration, error) {
	if !m.Enter() {
		return 0, engine.ErrDead
	}
	defer m.Leave()
	if m.w.API.Away {
		return 0, apiserver.ErrUnreachable
	}
	facts := m.facts()
	m.admit(facts)
	m.hint(facts)
	again := m.sweep(facts)
	m.grantReads()
	return again, nil
}

// facts returns what enroll knows of the world.
func (m *model) facts() *step.Facts {
	f := &step.Facts{Claims: step.Claims{}, Leases: map[string]*step.Lease{}, Roles: &step.Roles{}}
	role := &m.w.role
	role.Sound, role.Bound = true, m.w.API.Exists("RoleBinding", RoleName)
	for slot := range role.Memories {
		role.Sound = role.Sound && m.w.API.Granted(RoleName, "get", slot)
	}
	f.Roles.Add(role)
	for _, p := range m.w.Pods {
		if p.Object {
			f.Claims.Add(account, account, p.Stated(), p.claimed()...)
			pods := step.Replicas{Declared: true, Living: 1}
			if !p.Stopping {
				pods.Wanted = 1
			}
			f.Claims.Count(p.Workload, pods, p.claimed()...)
		}
	}
	for _, p := range m.w.Locals {
		f.Claims.Add(account, account, p.Duration, p.Slots()...)
		f.Claims.Count("", step.Replicas{Living: 1}, p.Slots()...)
	}
	for _, of := range m.w.Gathered {
		if len(of.Pods) > 0 {
			f.Claims.Add(account, account, of.Duration, of.Leases...)
		}
	}
	for _, name := range m.w.API.Names("Lease") {
		if l, _ := m.w.API.Lease(name); l.Labels[api.ManagedLabel] != "" {
			f.Leases[name] = seenLease(l)
		}
	}
	return f
}

// seenLease returns what the decisions need of a Lease. The simulation collects no garbage, so no Lease
// has an owner; enroll gives one to the Leases of barriers.
func seenLease(l *apiserver.Lease) *step.Lease {
	return &step.Lease{
		Name: l.Name, Version: l.ResourceVersion, Holder: l.Holder, Annotations: l.Annotations,
		Duration: time.Duration(l.DurationSeconds) * time.Second, Owned: api.RunOf(l.Name) != "",
	}
}

// admit creates the Leases that claimed slots lack, and lets the Role name them.
func (m *model) admit(facts *step.Facts) {
	slots, _ := facts.Incomplete()
	var leases []*step.Lease
	for _, slot := range slots {
		if next := api.NextLease(slot); api.HasNextLease(slot) && !m.w.API.Exists("Lease", next) {
			m.create("Lease", next, hinted(map[string]any{"spec": map[string]any{}}, facts.Claims[slot].Alone(false)))
		}
		lease := step.NewLease(slot, facts.Claims[slot], facts.Roles)
		leases = append(leases, &lease)
		if m.w.API.Exists("Lease", slot) {
			continue
		}
		if lease.Fresh(facts.Roles) {
			lease.Holder = ""
		}
		m.create("Lease", slot, map[string]any{"spec": map[string]any{
			"holderIdentity": lease.Holder, "leaseDurationSeconds": step.Seconds(lease.Duration), "leaseTransitions": 0,
		}})
	}
	assigned, _ := facts.Roles.Assign(account, account, facts.Claims, leases)
	for _, to := range assigned {
		if to.Changed || !to.Bound {
			m.grant()
		}
	}
}

// hint writes the hints of next Leases, or removes them.
func (m *model) hint(facts *step.Facts) {
	hints := facts.Hints()
	for _, slot := range slices.Sorted(maps.Keys(hints)) {
		raw, err := m.w.API.Get("Lease", api.NextLease(slot))
		engine.Must(err)
		_, err = m.w.API.Put(m.Name, "Lease", api.NextLease(slot), apiserver.Encode(hinted(apiserver.Decode(raw), hints[slot])))
		engine.Must(err)
	}
}

// hinted adds the hint to a next Lease, or removes it.
func hinted(body map[string]any, alone bool) map[string]any {
	annotations, _ := apiserver.Metadata(body)["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		apiserver.Metadata(body)["annotations"] = annotations
	}
	if annotations[api.AloneAnnotation] = api.AloneTrue; !alone {
		delete(annotations, api.AloneAnnotation)
	}
	return body
}

// sweep removes what has been unclaimed for a whole lease duration.
func (m *model) sweep(facts *step.Facts) (again time.Duration) {
	now := time.Now()
	m.unclaimed = step.Observe(m.unclaimed, facts.Unclaimed(), now)
	due, again := facts.Expire(m.unclaimed, now)
	if due.Empty() {
		return again
	}
	removals, _ := facts.Remove(due, facts.Claims, facts.Roles)
	for _, name := range slices.Sorted(maps.Keys(due.Leases)) {
		for _, lease := range []string{name, api.NextLease(name)} {
			if facts.Leases[lease] != nil {
				engine.Must(m.remove("Lease", lease, "", ""))
			}
		}
		delete(m.w.role.Memories, name)
	}
	for _, name := range removals[0].Rights {
		delete(m.w.role.Memories, name)
	}
	m.grant()
	return again
}

// stampRounds bounds the rounds of one call, as in enroll.
const stampRounds = 4

// stamp writes the stamps until no Lease needs a write. The result is the time until a closed Lease
// expires; zero without such a Lease. If Leases still need writes after all rounds, the result is one
// second.
func (m *model) stamp(ctx context.Context) (time.Duration, error) {
	for range stampRounds {
		listed, err := m.List(ctx, "Lease", func(map[string]string) bool { return true })
		if err != nil {
			return 0, err
		}
		var all struct{ Items []json.RawMessage }
		engine.Must(json.Unmarshal(listed, &all))
		raw, leases := map[int]json.RawMessage{}, map[string]*step.Lease{}
		for _, item := range all.Items {
			l := apiserver.LeaseFrom(item)
			if _, n, ok := api.ReadShard(l.Name); ok {
				raw[n], leases[l.Name] = item, seenLease(l)
			}
		}
		orders, again := m.orders(leases)
		if len(orders) == 0 {
			return again, nil
		}
		for _, order := range orders {
			if err := m.write(ctx, raw[order.Number], order); err != nil {
				return 0, err
			}
		}
	}
	return time.Second, nil
}

// orders returns the writes that the Leases of the only sharded workload need.
func (m *model) orders(leases map[string]*step.Lease) (orders []step.Action, again time.Duration) {
	if !m.Enter() {
		return nil, 0
	}
	defer m.Leave()
	facts, now := m.facts(), time.Now()
	m.shut = step.Observe(m.shut, step.Shut(leases), now)
	for group, shards := range step.Groups(leases) {
		for i, s := range shards {
			expired, left := facts.Expired(m.shut, leases[api.ShardLease(group, s.Number)], now)
			shards[i].Expired, again = expired, step.Sooner(again, left)
		}
		if count, run := m.number(step.Decided(shards)); count > 0 && !step.InOrder(shards, count, run) {
			orders = step.Next(shards, count, run, facts.Roles.Absent(group, shards))
		}
	}
	return orders, again
}

// number returns the number of shards and the run that this process believes to be current. A
// confused process believes in a wrong number, or in the run and the number of another Job.
func (m *model) number(current api.Stamp) (int, string) {
	if m.Believes > 0 {
		return m.Believes, m.BelievesIn
	}
	var of step.Sharded
	if len(m.w.Mapped) == 0 {
		of.Template = m.w.Sharded
	}
	for i, p := range m.w.Pods {
		run := p.Key
		if p.Orphaned {
			run = ""
		}
		if p.Object && p.Shards > 0 {
			of.Pods = append(of.Pods, step.ShardedPod{
				Count: p.Shards, Created: time.Unix(int64(i), 0), Run: run, Orphaned: run == "", Stays: !p.Stopping, Runs: !p.Stopping,
			})
		}
	}
	return of.Number(current)
}

// write updates a Lease as the order demands. The update fails if the Lease has changed since the
// model listed the Leases.
func (m *model) write(ctx context.Context, raw json.RawMessage, order step.Action) error {
	body := apiserver.Decode(raw)
	annotations, _ := apiserver.Metadata(body)["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		apiserver.Metadata(body)["annotations"] = annotations
	}
	annotations[api.StampAnnotation] = order.Stamp.String()
	if order.Free {
		body["spec"].(map[string]any)["holderIdentity"] = ""
		delete(annotations, api.HoldAnnotation)
	}
	_, err := m.Update(ctx, "Lease", apiserver.Meta(body, "name"), apiserver.Encode(body))
	return err
}

// grant writes and binds the Role that names the Leases of each remembered slot.
func (m *model) grant() {
	names := slices.Sorted(maps.Keys(m.w.role.Memories))
	for _, slot := range names {
		if api.HasNextLease(slot) {
			names = append(names, api.NextLease(slot))
		}
	}
	m.bind(RoleName, names, "get", "watch", "update")
}

// grantReads writes and binds a Role that names the Leases of all conditions.
func (m *model) grantReads() {
	names := slices.Sorted(maps.Keys(m.w.Read))
	if slices.ContainsFunc(names, func(lease string) bool { return !m.w.API.Granted(ConditionRoleName, "get", lease) }) {
		m.bind(ConditionRoleName, names, "get", "watch")
	}
}

// bind writes the Role, and its RoleBinding.
func (m *model) bind(name string, leases []string, verbs ...string) {
	m.create("Role", name, map[string]any{"rules": []apiserver.Rule{{
		APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: leases, Verbs: verbs,
	}}})
	m.create("RoleBinding", name, map[string]any{})
}

// create stores an object, and replaces an earlier object of the same kind and name.
func (m *model) create(kind, name string, body map[string]any) {
	body["kind"] = kind
	apiserver.Metadata(body)["labels"] = map[string]any{api.ManagedLabel: "true"}
	raw := apiserver.Encode(body)
	_, err := m.w.API.Create(m.Name, kind, name, raw)
	if err != nil {
		_, err = m.w.API.Put(m.Name, kind, name, raw)
	}
	engine.Must(err)
}
