// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestNamesOfRolesAreShortAndDiffer(t *testing.T) {
	long := strings.Repeat("a", 253)
	accounts := []string{
		"default", "pull-secrets", "1", "default.1", long, long[:252] + "b",
		long[:maxKey], long[:maxKey+1], long[:maxKey+2],
		// These accounts are named like the shortened form of another account's name.
		strings.ReplaceAll(roleKey(long), ":", "-"), strings.ReplaceAll(roleKey(long), ":", "."),
	}
	names := map[string]bool{PullSecretsRole: true}
	for _, account := range accounts {
		for n := range maxRolesPerAccount {
			name := roleName(account, n)
			assert.False(t, names[name], name)
			assert.LessOrEqual(t, len(name), 253)
			assert.Empty(t, content.IsPathSegmentName(name), "the API server rejects the Role's name")
			assert.NotEmpty(t, validation.NameIsDNSSubdomain(name, false), "a service account could have that name")
			assert.Equal(t, roleKey(account), keyOf(name))
			names[name] = true
		}
	}
	assert.Equal(t, "metaparticle:default", RoleName("default"))
	assert.Empty(t, keyOf("metaparticle-default"), "a name of an earlier version")
}

func TestNoRoleNameCollidesWithPullSecretsRole(t *testing.T) {
	for _, account := range []string{"pull-secrets", "metaparticle-pull-secrets", "secrets"} {
		t.Run(account, func(t *testing.T) {
			w := newWorld(t, gated("a", account, "lock.x"))
			r := w.process()
			r.PullSecrets = types.NamespacedName{Namespace: "system", Name: "webhook"}
			w.settle(r)
			assert.ElementsMatch(t, []string{RoleName(account), PullSecretsRole}, w.bindings())
			binding := new(rbacv1.RoleBinding)
			key := types.NamespacedName{Namespace: shop, Name: PullSecretsRole}
			require.NoError(t, w.server.Get(t.Context(), key, binding))
			assert.Equal(t, "ClusterRole", binding.RoleRef.Kind)
		})
	}
}

// A new Lease must block the slot for as long as a holder of the old Lease may run. So enroll must
// use the same default duration as the agent.
func TestClaimWithoutDurationGetsDefaultOfItsKind(t *testing.T) {
	for _, a := range api.Annotations {
		if a.Kind == nil {
			continue
		}
		request, err := api.Parse(map[string]string{a.Key: a.Examples[0]})
		require.NoError(t, err)
		for _, slot := range request.Slots(api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}) {
			c := claims{}
			c.addPod(gated("a", "till", slot), true)
			require.Contains(t, c, slot)
			assert.Equal(t, request.Duration(), c[slot].duration, slot)
		}
	}
}
