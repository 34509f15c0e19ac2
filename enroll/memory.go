// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// leasesAnnotation is the annotation in which a Role remembers each Lease that it
// names, even after the Lease is gone.
const leasesAnnotation = api.Prefix + "leases"

// maxMemories bounds the Leases in the annotation of a Role. Enroll writes at most 500, and early
// versions wrote 2,470.
const maxMemories = 2500

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
	step.Roles
	// objects has the Roles as they were read, by name.
	objects map[string]*rbacv1.Role
	// singles are the Roles for conditions and for Variables, by name. No agent can hold a Lease by
	// such a Role. So enroll treats a Lease that only these Roles name as a Lease without a Role.
	singles map[string]*singleRole
}

// markBound notes which Roles are bound correctly.
func (rs *agentRoles) markBound(bindings []rbacv1.RoleBinding) {
	byName := make(map[string]*rbacv1.RoleBinding, len(bindings))
	for i := range bindings {
		byName[bindings[i].Name] = &bindings[i]
	}
	for _, r := range rs.All {
		r.Bound = r.Key != "" && step.RoleKey(boundTo(byName[r.Name], rs.objects[r.Name])) == r.Key
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

// remembered decodes a Role's memory from the Role's annotation. If the Role's rules name a
// Lease and the annotation does not, the memory of this Lease is the longest possible lease
// duration.
func remembered(role *rbacv1.Role) map[string]step.Memory {
	memories := map[string]step.Memory{}
	text := role.Annotations[leasesAnnotation]
	if isForged(text) || json.Unmarshal([]byte(text), &memories) != nil || memories == nil {
		memories = map[string]step.Memory{}
	}
	// A user may have overwritten the Role's annotation. A Lease that the rules name may have been
	// held, so the function adds the Lease to the memory all the same.
	for _, rule := range role.Rules {
		if slices.Contains(rule.Resources, leaseResource) {
			for _, name := range rule.ResourceNames {
				if _, ok := memories[name]; !ok {
					memories[name] = step.Memory{Seconds: step.Seconds(api.MaxLeaseDuration)}
				}
			}
		}
	}
	// A next Lease is not a slot, but an earlier version of enroll remembered next Leases as slots.
	maps.DeleteFunc(memories, func(name string, _ step.Memory) bool { return api.IsNextLease(name) })
	return memories
}

// isForged reports whether enroll cannot have written the annotation of a Role. Enroll writes three
// colons for each Lease, and one of them follows the word "seconds". A user could otherwise write a
// Lease for each ten bytes, and a Lease takes 80 bytes of memory.
func isForged(annotation string) bool {
	leases := strings.Count(annotation, `"seconds":`)
	return leases > maxMemories || strings.Count(annotation, ":") > 3*leases
}

// remember writes a memory into a Role's annotation and rules.
func remember(role *rbacv1.Role, memories map[string]step.Memory) error {
	text, err := json.Marshal(memories)
	if err != nil {
		return fmt.Errorf("write memory of role %s: %w", role.Name, err)
	}
	if role.Annotations == nil {
		role.Annotations = map[string]string{}
	}
	role.Annotations[leasesAnnotation] = string(text)
	role.Rules = rules(memories)
	return nil
}

// rules returns the rules for the Leases in a Role's memory, and for their next Leases. Names that
// no slot can have are left out. So a user who may only annotate a Role cannot make the Role name a
// Lease that belongs to no slot.
func rules(memories map[string]step.Memory) []rbacv1.PolicyRule {
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
