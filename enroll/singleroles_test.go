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
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
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
	w := newWorld(t, podsWithConditions("b", maxSlotsPerRole-5)...)
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
	require.Len(t, named, maxSlotsPerRole)
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
	const maxConditionKey = maxRoleName - len(conditionPrefix)
	long := strings.Repeat("a", 253)
	accounts := []string{
		"after", "default", "1", "after.1", "after-after", "metaparticle-after", "pull-secrets", long, long[:252] + "b",
		long[:maxConditionKey], long[:maxConditionKey+1], long[:maxKey], long[:maxKey+1],
		// These accounts are named like the shortened form of another account's name.
		strings.ReplaceAll(shortened(long, maxConditionKey), ":", "-"), strings.ReplaceAll(shortened(long, maxConditionKey), ":", "."),
	}
	w := newWorld(t)
	names := map[string]bool{PullSecretsRole: true}
	for i, account := range accounts {
		name := ConditionRoleName(account)
		assert.False(t, names[name], name)
		assert.LessOrEqual(t, len(name), maxRoleName)
		assert.Empty(t, keyOf(name), "a Role for conditions is no agent's Role")
		assert.True(t, isSingle(name))
		names[name] = true
		for n := range maxRolesPerAccount {
			assert.False(t, isSingle(roleName(account, n)))
			names[roleName(account, n)] = true
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
