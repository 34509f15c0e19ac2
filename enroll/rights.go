// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/metaparticle-io/metaparticle/api"
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

const (
	// rolePrefix ends in a colon, so no Role has the name of the webhook's own
	// RoleBinding, [PullSecretsRole]. With a hyphen instead, the Role of an account named
	// pull-secrets would have that name.
	rolePrefix = "metaparticle:"
	// conditionPrefix begins the names of the Roles for conditions. The name of an agent's Role never
	// begins with conditionPrefix, because rolePrefix has a colon in place of the hyphen.
	conditionPrefix = "metaparticle-after:"
	// variablePrefix begins the names of the Roles for Variables.
	variablePrefix = "metaparticle-variable:"
	// maxRoleName bounds the length of a Role's name. Kubernetes has this bound for most objects.
	maxRoleName = 253
	// maxKey bounds the length of the result of [roleKey]. A Role's name also has the prefix, and
	// may have a colon with a two-digit number.
	maxKey = maxRoleName - len(rolePrefix) - 3
)

// RoleName returns the name of the first Role of a service account, and of its
// RoleBinding.
func RoleName(account string) string { return roleName(account, 0) }

// roleName returns the name of an account's Role with the number n. The first Role has the number
// 0, and its name contains no number.
func roleName(account string, n int) string {
	name := rolePrefix + roleKey(account)
	if n > 0 {
		name += ":" + strconv.Itoa(n)
	}
	return name
}

// roleKey returns the part that the names of all Roles of an account's agents share.
func roleKey(account string) string { return shortened(account, maxKey) }

// ConditionRoleName returns the name of the Role by which a service account reads the Leases of
// its pods' conditions. The RoleBinding has the same name.
func ConditionRoleName(account string) string { return singleRoleName(conditionPrefix, account) }

// VariableRoleName returns the name of the Role by which a service account uses the Variables of its
// pods. The RoleBinding has the same name.
func VariableRoleName(account string) string { return singleRoleName(variablePrefix, account) }

func singleRoleName(prefix, account string) string {
	return prefix + shortened(account, maxRoleName-len(prefix))
}

// isSingle reports whether [ConditionRoleName] or [VariableRoleName] can return the name.
func isSingle(role string) bool {
	return strings.HasPrefix(role, conditionPrefix) || strings.HasPrefix(role, variablePrefix)
}

// shortened returns the account's name. If the name is longer than limit, the result is the name's
// beginning, a colon and the name's hash. Two accounts never share a result, because no account's
// name contains a colon.
func shortened(account string, limit int) string {
	if len(account) <= limit {
		return account
	}
	sum := sha256.Sum256([]byte(account))
	hash := hex.EncodeToString(sum[:16])
	return account[:limit-1-len(hash)] + ":" + hash
}

// keyOf returns the result of [roleKey] that a Role's name contains. For a name that [roleName]
// never makes, such as a name from an earlier version of enroll, the result is empty.
func keyOf(role string) string {
	key, ok := strings.CutPrefix(role, rolePrefix)
	if !ok {
		return ""
	}
	// A suffix of one or two characters is the Role's number. The hash of a long account name is
	// longer.
	if i := strings.LastIndexByte(key, ':'); i >= 0 && len(key)-i <= 3 {
		return key[:i]
	}
	return key
}
