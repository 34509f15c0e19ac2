// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

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
	for i := range maxSlotsPerRole + 1 {
		w.create(gated(fmt.Sprintf("p-%03d", i), "till", fmt.Sprintf("variable.v-%03d", i)))
	}
	r := w.process()
	r.Events = w
	w.settle(r)
	assert.Len(t, w.usable("till"), maxSlotsPerRole)
	assert.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "Variable v-500 waits: the pods of its service account name more than 500 Variables")
}
