// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
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
		by: webhookAccount, resource: rbacv1.SchemeGroupVersion.WithResource("roles"), in: in, object: changed, old: old,
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

// webhookAccount is the account of enroll.
var webhookAccount = &user.DefaultInfo{Name: "system:serviceaccount:metaparticle-system:metaparticle-webhook"}

// A stranger with the webhook's service account token changes no Lease of a node, of the control plane or
// of another controller, and no done key.
func TestWebhookAccountWritesOnlyTheLeasesOfEnroll(t *testing.T) {
	const others, election = "metaparticle-others", "metaparticle-enroll"
	free := func(name string, labelled bool) *coordinationv1.Lease {
		l := &coordinationv1.Lease{ObjectMeta: ours(name)}
		if !labelled {
			l.Labels = nil
		}
		return l
	}
	taken := func(l *coordinationv1.Lease) *coordinationv1.Lease {
		l = l.DeepCopy()
		if l.Name != election {
			l.Labels = ours(l.Name).Labels
		}
		l.Spec.HolderIdentity = new("thief")
		return l
	}
	done := free("once.recorded", true)
	done.Annotations = map[string]string{api.DoneAnnotation: "7"}
	singleton := api.SingletonLease(api.Workload{Group: "example.com", Kind: "Rollout", Name: "a.b"}, "main")
	for what, test := range map[string]struct {
		in       string
		now, old *coordinationv1.Lease
		reason   string
	}{
		"a Lease with done keys, deleted":                  {shop, nil, done, "WorkDone: "},
		"a node's heartbeat":                               {corev1.NamespaceNodeLease, taken(free("node", false)), free("node", false), "NotYours: "},
		"a node's heartbeat, deleted":                      {corev1.NamespaceNodeLease, nil, free("node", false), "NotYours: "},
		"a Lease of the control plane":                     {metav1.NamespaceSystem, free("kube-scheduler", true), nil, "NotYours: "},
		"a Lease beside the election's":                    {"metaparticle-system", free("lock.x", true), nil, "NotYours: "},
		"the election's Lease elsewhere":                   {shop, free(election, false), nil, "NotYours: "},
		"another's election, made first":                   {metav1.NamespaceDefault, free("cert-manager-controller", true), nil, "NotYours: "},
		"a name that only resembles a slot":                {shop, free("singleton-elector", true), nil, "NotYours: "},
		"a name that only resembles a next Lease":          {shop, free(api.NextLease("elector"), true), nil, "NotYours: "},
		"a Lease without our label":                        {shop, free("new", false), nil, "NotYours: "},
		"another's Lease, labelled as ours":                {shop, taken(free(others, false)), free(others, false), "NotYours: "},
		"another's Lease, deleted":                         {shop, nil, free(others, false), "NotYours: "},
		"makes a Lease":                                    {shop, free("lock.x", true), nil, ""},
		"makes a next Lease":                               {shop, free(api.NextLease("lock.x"), true), nil, ""},
		"makes a Lease of a singleton":                     {shop, free(singleton, true), nil, ""},
		"makes a Lease anew where the namespace opted out": {metav1.NamespaceDefault, free("lock.x", true), nil, ""},
		"frees a Lease":                                    {shop, taken(free("lock.x", true)), free("lock.x", true), ""},
		"sweeps a Lease":                                   {shop, nil, free("lock.x", true), ""},
		"is elected":                                       {"metaparticle-system", taken(free(election, false)), free(election, false), ""},
	} {
		write := request{by: webhookAccount, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(test.in, test.in == shop)}
		if test.now != nil {
			write.object = test.now
		}
		if test.old != nil {
			write.old = test.old
		}
		refused := refusals(t, write)
		if test.reason == "" {
			assert.Empty(t, refused, what)
			continue
		}
		require.NotEmpty(t, refused, what)
		for _, r := range refused {
			assert.Contains(t, r, test.reason, what)
		}
	}
	status := gatedPod("victim")
	status.Status.PodIP = "192.0.2.1"
	refused := refusals(t, request{by: webhookAccount, resource: podResource, subresource: "status", in: namespace(shop, true), object: status, old: gatedPod("victim")})
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: the webhook changes no pod's status")
}

// A Role or a binding of enroll gives nobody more than the rights of an agent.
func TestWebhookAccountGrantsOnlyTheRightsOfAgents(t *testing.T) {
	here, name := namespace(shop, true), enroll.RoleName("till")
	rules := func(change func([]rbacv1.PolicyRule) []rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: ours(name), Rules: change(enroll.AgentRules("lock.x", "next.lock.x"))}
	}
	leases := func(names ...string) *rbacv1.Role {
		return rules(func(r []rbacv1.PolicyRule) []rbacv1.PolicyRule { r[0].ResourceNames = names; return r })
	}
	more := func(group, resource, verb string) *rbacv1.Role {
		return rules(func(r []rbacv1.PolicyRule) []rbacv1.PolicyRule {
			return append(r, rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}})
		})
	}
	unlabelled, foreign, secrets := rules(slices.Clone), bound(name, name), bound(name, name)
	unlabelled.Labels, foreign.Subjects[0].Namespace = nil, metav1.NamespaceDefault
	secrets.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}
	secrets.Name = "cluster-admin"
	urls := rules(func(r []rbacv1.PolicyRule) []rbacv1.PolicyRule { r[3].NonResourceURLs = []string{"/metrics"}; return r })
	for what, test := range map[string]struct {
		in      *corev1.Namespace
		now     object
		refused bool
	}{
		"makes a Role":                             {here, rules(slices.Clone), false},
		"makes a Role without rules":               {here, &rbacv1.Role{ObjectMeta: ours(name)}, false},
		"binds a Role":                             {here, bound(name, name), false},
		"a Role for another's election":            {here, leases("lock.x", "cert-manager-controller"), true},
		"a Role for all Leases":                    {here, leases(), true},
		"a Role with more verbs":                   {here, more("", "pods", "list"), true},
		"a Role to delete Leases":                  {here, more("coordination.k8s.io", "leases", "delete"), true},
		"a Role for a path":                        {here, urls, true},
		"a Role without our label":                 {here, unlabelled, true},
		"a Role in kube-system":                    {namespace(metav1.NamespaceSystem, false), rules(slices.Clone), true},
		"a Role of its own":                        {namespace("metaparticle-system", false), rules(slices.Clone), true},
		"a binding to another namespace's account": {here, foreign, true},
		"a binding of a ClusterRole":               {here, secrets, true},
	} {
		assert.Equal(t, test.refused, len(byWebhook(t, test.in, test.now)) > 0, what)
	}
	for what, old := range map[string]object{"another's Role, deleted": unlabelled, "another's binding, deleted": &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}}} {
		refused := changedByWebhook(t, here, nil, old)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: ", what)
	}
}
