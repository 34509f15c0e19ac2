// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// rules give what the memory names, as far as it can be a slot: who may only
// annotate a Role must not choose which Leases it names.
func rules(memories map[string]memory) []rbacv1.PolicyRule {
	return AgentRules(slices.DeleteFunc(slices.Sorted(maps.Keys(memories)), func(name string) bool {
		return !api.IsSlot(name)
	})...)
}

// AgentRules are an agent's rights. The policies of manifests/policies bind
// them to the pod that uses them, and know by the last one who has them: it is
// a right to nothing, which nobody else is given.
func AgentRules(leases ...string) []rbacv1.PolicyRule {
	marker := rbacv1.PolicyRule{
		APIGroups: []string{strings.TrimSuffix(api.Prefix, "/")},
		Resources: []string{"agents"},
		Verbs:     []string{"be"},
	}
	if len(leases) == 0 {
		// A rule that names no Lease would be about all of them.
		return []rbacv1.PolicyRule{marker}
	}
	return []rbacv1.PolicyRule{{
		APIGroups:     []string{coordinationv1.GroupName},
		Resources:     []string{"leases"},
		ResourceNames: leases,
		Verbs:         []string{"get", "watch", "update"},
	}, {
		APIGroups: []string{""},
		Resources: []string{"pods/status"},
		Verbs:     []string{"patch"},
	}, {
		APIGroups: []string{""},
		Resources: []string{"events"},
		Verbs:     []string{"create"},
	}, marker}
}
