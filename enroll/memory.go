// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// leasesAnnotation is the annotation in which a Role remembers each Lease that it
// names, even after the Lease is gone.
const leasesAnnotation = api.Prefix + "leases"

// maxMemories bounds the Leases in the annotation of a Role. Enroll writes at most 500, and early
// versions wrote 2,470.
const maxMemories = 2500

// memory is a Role's record of one Lease.
type memory struct {
	// Seconds is the longest duration ever claimed under the Lease's name.
	Seconds int32 `json:"seconds"`
	// UID is the UID of the last Lease with the recorded name. If the Lease is created again,
	// enroll writes the new UID into the Role. That write changes the Role's version. So a sweep
	// that judged the earlier Lease fails to write the Role.
	UID types.UID `json:"uid"`
}

// agentRole is a Role that enroll made, with its memory decoded.
type agentRole struct {
	role *rbacv1.Role
	// key is the result of [roleKey] for the Role's account. If the Role's name contains no such
	// result, key is empty.
	key      string
	memories map[string]memory
	// sound reports that the Role's rules are exactly those that enroll would write for the Role's
	// memory.
	sound bool
	// bound reports that the Role is bound to its account alone.
	bound bool
}

// singleRole is the Role by which an account reads the Leases of its pods' conditions, or uses the
// Variables of its pods.
type singleRole struct {
	role *rbacv1.Role
	// account is the only account to which the Role is bound. Without a correct binding, the
	// account is empty.
	account string
}

// agentRoles are the Roles that enroll made in a namespace.
type agentRoles struct {
	all []*agentRole
	// byKey are the Roles of each account, by the account's roleKey.
	byKey map[string][]*agentRole
	// singles are the Roles for conditions and for Variables, by name. No agent can hold a Lease by
	// such a Role. So enroll treats a Lease that only these Roles name as a Lease without a Role.
	singles map[string]*singleRole
	// longest are the longest lease durations, in seconds, that any Role remembers for
	// each Lease. Every Lease that a Role names has an entry.
	longest map[string]int32
}

func (rs *agentRoles) add(r *agentRole) {
	rs.all = append(rs.all, r)
	if r.key != "" {
		rs.byKey[r.key] = append(rs.byKey[r.key], r)
	}
	for lease, m := range r.memories {
		rs.longest[lease] = max(rs.longest[lease], m.Seconds)
	}
}

// markBound notes which Roles are bound correctly.
func (rs *agentRoles) markBound(bindings []rbacv1.RoleBinding) {
	byName := make(map[string]*rbacv1.RoleBinding, len(bindings))
	for i := range bindings {
		byName[bindings[i].Name] = &bindings[i]
	}
	for _, r := range rs.all {
		r.bound = r.key != "" && roleKey(boundTo(byName[r.role.Name], r.role)) == r.key
	}
	for name, r := range rs.singles {
		r.account = boundTo(byName[name], r.role)
	}
}

// boundTo returns the service account to which the RoleBinding binds the Role, if the RoleBinding
// has no other subject. Otherwise the result is empty.
func boundTo(b *rbacv1.RoleBinding, role *rbacv1.Role) string {
	if b == nil || b.RoleRef != roleRef(role.Name) || len(b.Subjects) != 1 ||
		b.Subjects[0] != subject(role.Namespace, b.Subjects[0].Name) {
		return ""
	}
	return b.Subjects[0].Name
}

// named reports whether a Role remembers the Lease.
func (rs *agentRoles) named(lease string) bool {
	_, ok := rs.longest[lease]
	return ok
}

// duration returns the longest lease duration that any Role remembers for the Lease.
func (rs *agentRoles) duration(lease string) time.Duration {
	return time.Duration(rs.longest[lease]) * time.Second
}

// of returns the Roles of an account that remember the Lease. After a race of two
// processes, several Roles may remember the Lease.
func (rs *agentRoles) of(key, lease string) []*agentRole {
	var found []*agentRole
	for _, r := range rs.byKey[key] {
		if _, ok := r.memories[lease]; ok {
			found = append(found, r)
		}
	}
	return found
}

// remembered decodes a Role's memory from the Role's annotation. If the Role's rules name a
// Lease and the annotation does not, the memory of this Lease is the longest possible lease
// duration.
func remembered(role *rbacv1.Role) map[string]memory {
	memories := map[string]memory{}
	text := role.Annotations[leasesAnnotation]
	if isForged(text) || json.Unmarshal([]byte(text), &memories) != nil || memories == nil {
		memories = map[string]memory{}
	}
	// A user may have overwritten the Role's annotation. A Lease that the rules name may have been
	// held, so the function adds the Lease to the memory all the same.
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, leaseResource) {
			for _, name := range rule.ResourceNames {
				if _, ok := memories[name]; !ok {
					memories[name] = memory{Seconds: seconds(api.MaxLeaseDuration)}
				}
			}
		}
	}
	// A next Lease is not a slot, but an earlier version of enroll remembered next Leases as slots.
	maps.DeleteFunc(memories, func(name string, _ memory) bool { return api.IsNextLease(name) })
	return memories
}

// isForged reports whether enroll cannot have written the annotation of a Role. Enroll writes three
// colons for each Lease, and one of them follows the word "seconds". A user could otherwise write a
// Lease for each ten bytes, and a Lease takes 80 bytes of memory.
func isForged(annotation string) bool {
	leases := strings.Count(annotation, `"seconds":`)
	return leases > maxMemories || strings.Count(annotation, ":") > 3*leases
}

// remember writes the memory into the Role's annotation and rules.
func (r *agentRole) remember() error {
	text, err := json.Marshal(r.memories)
	if err != nil {
		return fmt.Errorf("write memory of role %s: %w", r.role.Name, err)
	}
	if r.role.Annotations == nil {
		r.role.Annotations = map[string]string{}
	}
	r.role.Annotations[leasesAnnotation] = string(text)
	r.role.Rules = rules(r.memories)
	return nil
}

// rules returns the rules for the Leases in a Role's memory, and for their next Leases. Names that
// no slot can have are left out. So a user who may only annotate a Role cannot make the Role name a
// Lease that belongs to no slot.
func rules(memories map[string]memory) []rbacv1.PolicyRule {
	slots := slices.DeleteFunc(slices.Sorted(maps.Keys(memories)), func(name string) bool {
		return !api.IsSlot(name)
	})
	return AgentRules(append(slots, nextLeases(slots)...)...)
}

// nextLeases returns the names of the slots' next Leases. These names follow from the names of the
// slots, so a Role's annotation does not record them.
func nextLeases(slots []string) []string {
	var names []string
	for _, slot := range slots {
		if api.HasNextLease(slot) {
			names = append(names, api.NextLease(slot))
		}
	}
	return names
}

// seconds rounds up, because a Lease stores whole seconds.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }
