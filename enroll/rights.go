// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// AgentRules returns an agent's rights on the given Leases. The policies in manifests/policies
// restrict each agent to its own pod. The policies recognize an agent by the last rule, which only
// enroll's Roles have. That rule allows a verb on a resource that does not exist.
func AgentRules(leases ...string) []rbacv1.PolicyRule {
	if len(leases) == 0 {
		// A rule without resource names would apply to all Leases.
		return []rbacv1.PolicyRule{marker("agents")}
	}
	return []rbacv1.PolicyRule{
		leaseRule(leases, "get", "watch", "update"),
		{APIGroups: []string{""}, Resources: []string{"pods/status"}, Verbs: []string{"patch"}},
		eventRule(), marker("agents"),
	}
}

// ConditionRules returns the rights of pods that wait for conditions on the given Leases. By the last
// rule, a policy recognizes such a pod, and restricts its Events to the pod itself. Without Leases,
// the result is empty.
func ConditionRules(leases ...string) []rbacv1.PolicyRule {
	if len(leases) == 0 {
		return nil
	}
	return []rbacv1.PolicyRule{leaseRule(leases, "get", "watch"), eventRule(), marker("waiters")}
}

// VariableRules returns the rights of agents whose programs use the given Variables. By the last rule,
// the policy on Variables recognizes an agent, and restricts the agent to its own pod. Without
// Variables, the result is empty.
func VariableRules(variables ...string) []rbacv1.PolicyRule {
	if len(variables) == 0 {
		return nil
	}
	return []rbacv1.PolicyRule{{
		APIGroups: []string{api.VariableGroup}, Resources: []string{api.VariableResource}, ResourceNames: variables, Verbs: []string{"get", "watch", "update"},
	}, marker("agents")}
}

func leaseRule(leases []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups: []string{coordinationv1.GroupName}, Resources: []string{leaseResource}, ResourceNames: leases, Verbs: verbs,
	}
}

func eventRule() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}}
}

// marker returns the rule by which policies recognize an account that has a Role of enroll. The
// rule allows a verb on a resource that does not exist.
func marker(resource string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups: []string{strings.TrimSuffix(api.Prefix, "/")}, Resources: []string{resource}, Verbs: []string{"be"},
	}
}

const (
	roleKind      = "Role"
	leaseResource = "leases"
)

func roleRef(role string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: roleKind, Name: role}
}

func subject(namespace, account string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}
}

// RoleName returns the name of the first Role of a service account, and of its
// RoleBinding.
func RoleName(account string) string { return step.RoleName(account, 0) }

// ConditionRoleName returns the name of the Role by which a service account reads the Leases of
// its pods' conditions. The RoleBinding has the same name.
func ConditionRoleName(account string) string {
	return step.SingleRoleName(step.ConditionPrefix, account)
}

// VariableRoleName returns the name of the Role by which a service account uses the Variables of its
// pods. The RoleBinding has the same name.
func VariableRoleName(account string) string {
	return step.SingleRoleName(step.VariablePrefix, account)
}
