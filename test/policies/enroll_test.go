// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
)

const shop = "shop"

// byWebhook returns the messages of the policies that refuse the creation of an object of RBAC by the
// webhook's account.
func byWebhook(t *testing.T, in *corev1.Namespace, created object) []string {
	t.Helper()
	return changedByWebhook(t, in, created, nil)
}

// changedByWebhook returns the messages of the policies that refuse a change from the object "old" to
// the object "changed".
func changedByWebhook(t *testing.T, in *corev1.Namespace, changed, old object) []string {
	t.Helper()
	r := request{
		by:       &user.DefaultInfo{Name: "system:serviceaccount:metaparticle-system:metaparticle-webhook"},
		resource: rbacv1.SchemeGroupVersion.WithResource("roles"), in: in, object: changed, old: old,
	}
	if _, ok := r.about().(*rbacv1.RoleBinding); ok {
		r.resource.Resource = "rolebindings"
	}
	return refusals(t, r)
}

// ours returns the metadata of an object of enroll.
func ours(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: map[string]string{api.ManagedLabel: "true"}}
}

// bound returns a RoleBinding of a Role to the service account "till".
func bound(role, name string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: ours(name), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: shop, Name: "till"}},
	}
}

func TestEnrollPolicyAdmitsAllRolesOfEnroll(t *testing.T) {
	roles := map[string][]rbacv1.PolicyRule{}
	for _, account := range []string{"till", "a.b-c", strings.Repeat("x", 253)} {
		roles[enroll.RoleName(account)] = enroll.AgentRules("lock.x", "next.lock.x")
		roles[enroll.RoleName(account)+":31"] = enroll.AgentRules()
		roles[enroll.ConditionRoleName(account)] = enroll.ConditionRules("lock.x")
		roles[enroll.VariableRoleName(account)] = enroll.VariableRules("hits")
	}
	roles[enroll.ConditionRoleName("idle")] = enroll.ConditionRules()
	for name, rules := range roles {
		// A pod can outlive the opt-in of its namespace. Then enroll restores the pod's lost Role.
		for _, in := range []*corev1.Namespace{namespace(shop, true), namespace(shop, false)} {
			assert.Empty(t, byWebhook(t, in, &rbacv1.Role{ObjectMeta: ours(name), Rules: rules}), name)
			assert.Empty(t, byWebhook(t, in, bound(name, name)), name)
		}
	}
	pull := bound(enroll.PullSecretsRole, enroll.PullSecretsRole)
	pull.RoleRef.Kind = "ClusterRole"
	pull.Subjects[0] = rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "metaparticle-system", Name: "metaparticle-webhook"}
	assert.Empty(t, byWebhook(t, namespace(shop, true), pull))
	assert.NotEmpty(t, byWebhook(t, namespace(shop, false), pull))
}

// A policy on agents recognizes a service account by a rule of the account's Role. A thief of the
// webhook's token must not grant an agent's rights without that rule.
func TestWebhookAccountCannotGrantRightsWithoutMarkerRule(t *testing.T) {
	const unrecognized = "by which policies recognize"
	agents, conditions, variables := enroll.AgentRules("lock.x"), enroll.ConditionRules("lock.x"), enroll.VariableRules("hits")
	named := func(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
		rules = slices.Clone(rules)
		rules[len(rules)-1].ResourceNames = []string{"x"}
		return rules
	}
	waiter := conditions[len(conditions)-1]
	for what, rules := range map[string][]rbacv1.PolicyRule{
		"Leases":                                 agents[:1],
		"pods/status":                            agents[1:2],
		"Events":                                 agents[2:3],
		"all but the marker":                     agents[:3],
		"reads":                                  conditions[:1],
		"Events of waiters":                      conditions[1:2],
		"Variables":                              variables[:1],
		"a waiter's marker for an agent":         append(slices.Clone(agents[:3]), waiter),
		"a waiter's marker for Variables":        append(slices.Clone(variables[:1]), waiter),
		"a marker that applies to one object":    named(agents),
		"a waiter's marker for one object":       named(conditions),
		"a marker for one object, for Variables": named(variables),
	} {
		for _, name := range []string{enroll.RoleName("till"), enroll.VariableRoleName("till")} {
			refused := byWebhook(t, namespace(shop, true), &rbacv1.Role{ObjectMeta: ours(name), Rules: rules})
			require.Len(t, refused, 1, "%s: %q", what, refused)
			assert.Contains(t, refused[0], unrecognized, what)
		}
	}
}

// The names of enroll's Roles contain a colon, so no other program's Role has such a name.
func TestWebhookAccountCreatesRolesWithEnrollsNamesOnly(t *testing.T) {
	in := namespace(shop, true)
	for _, name := range []string{"edit", "metaparticle", "metaparticle-x", "metaparticle-after", "my-metaparticle:x", enroll.PullSecretsRole} {
		role := &rbacv1.Role{ObjectMeta: ours(name), Rules: enroll.AgentRules("lock.x")}
		refused := byWebhook(t, in, role)
		require.Len(t, refused, 1, name)
		assert.Contains(t, refused[0], "names of Roles", name)
	}
	for _, name := range []string{"edit", enroll.RoleName("other"), enroll.PullSecretsRole} {
		refused := byWebhook(t, in, bound(enroll.RoleName("till"), name))
		require.Len(t, refused, 1, name)
		assert.Contains(t, refused[0], "enroll binds its own Roles", name)
	}
}

// A user may have labelled a Role with another name. An error of a sweep would come back for ever.
func TestEnrollPolicyAdmitsSweepsOfAllLabeledObjects(t *testing.T) {
	for _, in := range []*corev1.Namespace{namespace(shop, true), namespace(shop, false)} {
		for _, name := range []string{enroll.RoleName("till"), enroll.ConditionRoleName("till"), enroll.VariableRoleName("till"), "edit"} {
			old := &rbacv1.Role{ObjectMeta: ours(name), Rules: enroll.AgentRules("lock.x", "lock.y")[:3]}
			assert.Empty(t, changedByWebhook(t, in, nil, old), name)
			assert.Empty(t, changedByWebhook(t, in, nil, bound("view", name)), name)
			rules := enroll.AgentRules("lock.x")
			if name == enroll.ConditionRoleName("till") {
				rules = enroll.ConditionRules("lock.x")
			}
			assert.Empty(t, changedByWebhook(t, in, &rbacv1.Role{ObjectMeta: ours(name), Rules: rules}, old), name)
		}
	}
}
