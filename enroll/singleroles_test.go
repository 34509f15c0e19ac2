// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// podsWithConditions returns pods of one account with n conditions in all.
func podsWithConditions(name string, n int) []client.Object {
	var pods []client.Object
	for i := 0; i < n; i += 5 {
		var leases []string
		for j := range 5 {
			leases = append(leases, fmt.Sprintf("lock.%s-%03d", name, i+j))
		}
		pods = append(pods, waiting(name+"-"+strconv.Itoa(i), "till", leases...))
	}
	return pods
}

func TestNewConditionsNeverDisplaceOthersFromFullRole(t *testing.T) {
	w := newWorld(t, podsWithConditions("b", step.MaxSlotsPerRole-5)...)
	r := w.process()
	w.settle(r)
	late := podsWithConditions("a", 10) // the Leases of these pods come first in sorted order
	for _, pod := range late {
		w.create(pod)
	}
	clear(w.requests)
	w.settle(r)
	assert.Equal(t, map[string]int{"update Role": 1}, w.requests)
	w.settle(r)
	named := w.readable("till")
	require.Len(t, named, step.MaxSlotsPerRole)
	assert.IsIncreasing(t, named)
	assert.Equal(t, []string{"lock.a-000", "lock.a-001", "lock.a-002", "lock.a-003", "lock.a-004", "lock.b-000"}, named[:6])
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "a-5 TooManySlots: A condition on lock.a-005 waits: its service account has conditions on more than 500 Leases")
	clear(w.requests)
	w.settle(r)
	assert.Empty(t, w.requests)

	w.remove(late[0])
	w.settle(r)
	assert.Equal(t, "lock.a-009", w.readable("till")[4])
	assert.Empty(t, r.notifier.tooMany.all)
}

func TestConditionRolesNeverShareNamesWithSlotRoles(t *testing.T) {
	long := strings.Repeat("a", 253)
	short := strings.TrimPrefix(ConditionRoleName(long), step.ConditionPrefix)
	maxConditionKey, maxKey := len(short), len(step.RoleKey(long))
	accounts := []string{
		"after", "default", "1", "after.1", "after-after", "metaparticle-after", "pull-secrets", long, long[:252] + "b",
		long[:maxConditionKey], long[:maxConditionKey+1], long[:maxKey], long[:maxKey+1],
		// These accounts are named like the shortened form of another account's name.
		strings.ReplaceAll(short, ":", "-"), strings.ReplaceAll(short, ":", "."),
	}
	w := newWorld(t)
	names := map[string]bool{PullSecretsRole: true}
	for i, account := range accounts {
		name := ConditionRoleName(account)
		assert.False(t, names[name], name)
		assert.LessOrEqual(t, len(name), step.MaxRoleName)
		assert.Empty(t, step.KeyOf(name), "a Role for conditions is no agent's Role")
		assert.True(t, step.IsSingle(name))
		names[name] = true
		for n := range step.MaxRolesPerAccount {
			assert.False(t, step.IsSingle(step.RoleName(account, n)))
			names[step.RoleName(account, n)] = true
		}
		w.create(after(gated("pod-"+strconv.Itoa(i), account, "lock.x-"+strconv.Itoa(i)), "lock.y-"+strconv.Itoa(i)))
	}
	w.settle(w.process())
	assert.Len(t, w.roles(), 2*len(accounts))
	for i, account := range accounts {
		assert.Equal(t, withNext("lock.x-"+strconv.Itoa(i)), w.role(account).Rules[0].ResourceNames)
		assert.Equal(t, []string{"lock.y-" + strconv.Itoa(i)}, w.readable(account))
		assert.Equal(t, []rbacv1.Subject{subject(shop, account)}, w.boundAccounts(ConditionRoleName(account)))
	}
}

func TestForeignConditionRoleAffectsOnlyTheNamedAccount(t *testing.T) {
	theirs := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: ConditionRoleName("till")}}
	w := newWorld(t, theirs, waiting("a", "till", "lock.a"), waiting("b", "biller", "lock.b"), gated("c", "till", "lock.x"))
	_, err := w.process().Namespace(t.Context(), shop)
	require.ErrorIs(t, err, ErrForeign)
	assert.Empty(t, w.conditionRole("till").Rules)
	assert.NotContains(t, w.conditionRole("till").Labels, api.ManagedLabel)
	assert.Equal(t, []string{"lock.b"}, w.readable("biller"))
	assert.NotNil(t, w.role("till"), "the right of the agents has another Role")
	assert.NotContains(t, w.bindings(), ConditionRoleName("till"))
}

func TestChangedRoleOrBindingForConditionsIsRestored(t *testing.T) {
	for name, spoil := range map[string]func(*world, *rbacv1.Role, *rbacv1.RoleBinding){
		"role deleted":    func(w *world, role *rbacv1.Role, _ *rbacv1.RoleBinding) { w.remove(role) },
		"binding deleted": func(w *world, _ *rbacv1.Role, b *rbacv1.RoleBinding) { w.remove(b) },
		"another rule": func(w *world, role *rbacv1.Role, _ *rbacv1.RoleBinding) {
			role.Rules = AgentRules("lock.a")
			require.NoError(w.t, w.server.Update(w.t.Context(), role))
		},
		"bound to another account": func(w *world, _ *rbacv1.Role, b *rbacv1.RoleBinding) {
			b.Subjects[0].Name = "thief"
			require.NoError(w.t, w.server.Update(w.t.Context(), b))
		},
		"bound to a second account": func(w *world, _ *rbacv1.Role, b *rbacv1.RoleBinding) {
			b.Subjects = append(b.Subjects, subject(shop, "thief"))
			require.NoError(w.t, w.server.Update(w.t.Context(), b))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, waiting("a", "till", "lock.a"))
			r := w.process()
			w.settle(r)
			var b rbacv1.RoleBinding
			require.NoError(t, w.server.Get(t.Context(), types.NamespacedName{Namespace: shop, Name: ConditionRoleName("till")}, &b))
			spoil(w, w.conditionRole("till"), &b)
			w.settle(r)
			assert.Equal(t, ConditionRules("lock.a"), w.conditionRole("till").Rules)
			assert.Equal(t, []rbacv1.Subject{subject(shop, "till")}, w.boundAccounts(ConditionRoleName("till")))
		})
	}
}

// variable returns the Variable with the given name, or nil if the Variable does not exist.
func (w *world) variable(name string) *unstructured.Unstructured {
	w.t.Helper()
	v := new(unstructured.Unstructured)
	v.SetAPIVersion(api.VariableGroup + "/" + api.VariableVersion)
	v.SetKind(api.VariableKind)
	if err := w.server.Get(w.t.Context(), client.ObjectKey{Namespace: shop, Name: name}, v); err != nil {
		require.NoError(w.t, client.IgnoreNotFound(err))
		return nil
	}
	return v
}

// usable returns the Variables that the account may use.
func (w *world) usable(account string) []string {
	w.t.Helper()
	role := w.roleNamed(VariableRoleName(account))
	if role == nil {
		return nil
	}
	return role.Rules[0].ResourceNames
}

func TestPodMayUseOnlyVariablesNamedInAnnotations(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x,variable.hits,variable.kube-system"), gated("b", "other", "variable.total"))
	r := w.process()
	w.settle(r)
	role := w.roleNamed(VariableRoleName("till"))
	require.NotNil(t, role)
	assert.Equal(t, "metaparticle-variable:till", role.Name)
	assert.Equal(t, []rbacv1.PolicyRule{
		{
			APIGroups: []string{"metaparticle.io"}, Resources: []string{"variables"}, Verbs: []string{"get", "watch", "update"},
			ResourceNames: []string{"hits", "kube-system"},
		},
		{APIGroups: []string{"metaparticle.io"}, Resources: []string{"agents"}, Verbs: []string{"be"}},
	}, role.Rules)
	assert.Equal(t, []rbacv1.Subject{subject(shop, "till")}, w.boundAccounts(role.Name))
	assert.Equal(t, []string{"total"}, w.usable("other"))
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames, "no Lease has the name of a Variable")
	assert.Nil(t, w.role("other"))
	for _, name := range []string{"hits", "kube-system", "total"} {
		v := w.variable(name)
		require.NotNil(t, v, name)
		assert.Equal(t, map[string]any{}, v.Object["spec"], "the first write decides the type")
		assert.Empty(t, v.GetLabels())
	}
}

func TestEnrollNeverChangesOrDeletesAVariable(t *testing.T) {
	pod := gated("a", "till", "variable.hits")
	w := newWorld(t, pod)
	v := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.VariableGroup + "/" + api.VariableVersion, "kind": api.VariableKind,
		"metadata": map[string]any{"namespace": shop, "name": "hits"}, "spec": map[string]any{"integer": int64(7)},
	}}
	require.NoError(t, w.server.Create(t.Context(), v))
	r := w.process()
	w.settle(r)
	assert.Equal(t, []string{"hits"}, w.usable("till"))
	w.remove(pod)
	w.settle(r)
	assert.Nil(t, w.usable("till"), "the right ends with the last pod")
	assert.Equal(t, map[string]any{"integer": int64(7)}, w.variable("hits").Object["spec"])
}

// A Variable that enroll created again would have no value. So the programs that use the Variable
// would begin anew without notice.
func TestDeletedVariableIsNotCreatedAgain(t *testing.T) {
	w := newWorld(t, gated("a", "till", "variable.hits"))
	w.settle(w.process())
	require.NoError(t, w.server.Delete(t.Context(), w.variable("hits")))
	w.create(gated("b", "till", "variable.hits"))
	w.requests = map[string]int{}
	w.settle(w.process())
	assert.Nil(t, w.variable("hits"))
	assert.Empty(t, w.requests)
	w.create(gated("c", "till", "variable.more,variable.hits"))
	w.settle(w.process())
	assert.Nil(t, w.variable("hits"))
	assert.NotNil(t, w.variable("more"))
}

func TestVariableExistsBeforeARoleNamesIt(t *testing.T) {
	for crash := 1; crash < 6; crash++ {
		w := newWorld(t, gated("a", "till", "variable.hits"))
		w.crashFrom(crash)
		_, _ = w.process().Namespace(t.Context(), shop)
		assert.True(t, len(w.usable("till")) == 0 || w.variable("hits") != nil, crash)
		w.before = nil
		w.settle(w.process())
		assert.NotNil(t, w.variable("hits"))
		assert.Equal(t, []string{"hits"}, w.usable("till"))
	}
}

func TestEnrollMakesVariablesBeforeTheWorkloadHasPods(t *testing.T) {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "web", Annotations: map[string]string{api.LocalAnnotation: "variable/hits, lock/a"},
	}}
	w := newWorld(t, d)
	w.settle(w.process())
	assert.Equal(t, []string{"hits"}, w.usable("default"))
	assert.NotNil(t, w.variable("hits"))
}

func TestEndedPodsAndInvalidVariablesGiveNoRights(t *testing.T) {
	ended := gated("ended", "till", "variable.ended")
	ended.Status.Phase = corev1.PodSucceeded
	w := newWorld(t, ended, gated("odd", "till", "variable.,variable.A,variable.a/b,variable.-"))
	w.settle(w.process())
	assert.Nil(t, w.usable("till"))
	assert.Nil(t, w.variable("ended"))
}

func TestTooManyVariablesOfAccountCauseOneEvent(t *testing.T) {
	w := newWorld(t)
	for i := range step.MaxSlotsPerRole + 1 {
		w.create(gated(fmt.Sprintf("p-%03d", i), "till", fmt.Sprintf("variable.v-%03d", i)))
	}
	r := w.process()
	r.Events = w
	w.settle(r)
	assert.Len(t, w.usable("till"), step.MaxSlotsPerRole)
	assert.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "Variable v-500 waits: the pods of its service account name more than 500 Variables")
}
