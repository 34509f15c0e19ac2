// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

var singleton = map[string]string{api.SingletonAnnotation: "true"}

func deployment(on, onTemplate map[string]string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "biller", Annotations: on},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "biller"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Annotations: onTemplate},
				Spec: corev1.PodSpec{
					ServiceAccountName: "till",
					Containers:         []corev1.Container{{Name: "app", Image: "biller"}},
				},
			},
		},
	}
}

func cronJob(annotations map[string]string) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "nightly"}}
	c.Spec.JobTemplate.Spec.Template.Annotations = annotations
	return c
}

func TestWorkloadsHaveTheirLeasesBeforeTheirPods(t *testing.T) {
	owned := deployment(singleton, singleton)
	owned.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "example.com/v1", Kind: "Shop", Name: "s", UID: "u", Controller: new(true),
	}}
	tests := map[string]struct {
		workload client.Object
		lease    string
		account  string
	}{
		"on the workload":       {deployment(singleton, nil), "singleton.deployment.biller", "till"},
		"on its template":       {deployment(nil, singleton), "singleton.deployment.biller", "till"},
		"default account":       {cronJob(singleton), "singleton.cronjob.nightly", "default"},
		"controlled by another": {owned, "", ""},
		"no claim":              {deployment(map[string]string{api.SingletonAnnotation: "false"}, nil), "", ""},
		"malformed":             {deployment(map[string]string{api.SingletonAnnotation: "yes"}, nil), "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.workload)
			w.settle(w.process())
			if test.lease == "" {
				assert.Zero(t, w.writes)
				return
			}
			require.NotNil(t, w.lease(test.lease))
			assert.Equal(t, []string{test.lease}, w.role(test.account).Rules[0].ResourceNames)
		})
	}
}

func TestLeaseOfAWorkloadWithoutPodsIsNotSwept(t *testing.T) {
	w := newWorld(t, cronJob(singleton))
	r := w.process()
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	assert.Zero(t, w.settle(r))
	assert.NotNil(t, w.lease("singleton.cronjob.nightly"))
}

func TestWorkloadAnnotatedBeforeItsNamespaceOptedInIsToldOnce(t *testing.T) {
	w := newWorld(t, deployment(singleton, nil))
	r := w.process()
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "biller NotGated: ")
	assert.Contains(t, w.events[0], "kubectl -n shop rollout restart deployment/biller")
}

func TestTheTemplatesAnnotationCountsWhereTheWorkloadsDiffers(t *testing.T) {
	w := newWorld(t, deployment(
		map[string]string{api.LockAnnotation: "on-the-workload"},
		map[string]string{api.LockAnnotation: "on-the-template"},
	))
	w.settle(w.process())
	assert.NotNil(t, w.lease("lock.on-the-template"), "which the next pods ask for")
	assert.Nil(t, w.lease("lock.on-the-workload"), "which nobody asks for")
}

func TestPodsFromBeforeTheInstallationAreTold(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "a", Labels: map[string]string{"app": "biller"}, Annotations: singleton,
	}}
	w := newWorld(t, deployment(singleton, singleton), pod)
	w.settle(w.process())
	assert.Len(t, w.events, 1)
}

func TestAnOrdinaryRolloutIsNotTold(t *testing.T) {
	before := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "a", Labels: map[string]string{"app": "biller"},
	}}
	after := gated("b", "till", "singleton.deployment.biller")
	after.Labels["app"] = "biller"
	after.Annotations[api.SingletonAnnotation] = "true"
	w := newWorld(t, deployment(singleton, singleton), before, after)
	w.settle(w.process())
	assert.Empty(t, w.events)
}

func TestPullSecretsMayBeReadWhereTheNamespaceOptedIn(t *testing.T) {
	w := newWorld(t)
	r := w.process()
	r.PullSecrets = types.NamespacedName{Namespace: "system", Name: "webhook"}
	w.settle(r)
	binding := new(rbacv1.RoleBinding)
	key := types.NamespacedName{Namespace: shop, Name: PullSecretsRole}
	require.NoError(t, w.server.Get(t.Context(), key, binding))
	assert.Equal(t, "ClusterRole", binding.RoleRef.Kind)
	assert.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "system", Name: "webhook"}}, binding.Subjects)

	w.optOut()
	w.settle(r)
	assert.True(t, apierrors.IsNotFound(w.server.Get(t.Context(), key, binding)))
}

// What the cache drops must not be missed: the same comes out either way.
func TestNothingThatIsReadIsStripped(t *testing.T) {
	pod := lasting(gated("a", "till", "lock.x"), "60s")
	pod.Status.Phase = corev1.PodRunning
	before, after := claims{}, claims{}
	before.addPods([]corev1.Pod{*pod}, false)
	stripped, err := strip(pod.DeepCopy())
	require.NoError(t, err)
	after.addPods([]corev1.Pod{*stripped.(*corev1.Pod)}, false)
	assert.Equal(t, before, after)
	assert.NotEmpty(t, after)

	for _, object := range []client.Object{deployment(singleton, nil), deployment(nil, singleton), cronJob(singleton)} {
		object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl"}})
		whole := newWorld(t, object.DeepCopyObject().(client.Object))
		all, err := whole.process().workloads(t.Context(), shop)
		require.NoError(t, err)
		bare, err := strip(object)
		require.NoError(t, err)
		assert.Empty(t, object.GetManagedFields())
		thin := newWorld(t, bare.(client.Object))
		some, err := thin.process().workloads(t.Context(), shop)
		require.NoError(t, err)
		before, after := claims{}, claims{}
		before.addWorkloads(all)
		after.addWorkloads(some)
		assert.Equal(t, before, after)
		assert.NotEmpty(t, after)
		assert.Equal(t, all[0].selector, some[0].selector)
	}
}

func TestRoleNamesAreShortAndDiffer(t *testing.T) {
	long := make([]byte, 253)
	for i := range long {
		long[i] = 'a'
	}
	assert.Equal(t, "metaparticle-default", RoleName("default"))
	// An account whose name was chosen to be another one's shortened form.
	chosen := strings.TrimPrefix(RoleName(string(long)), "metaparticle-")
	assert.NotEqual(t, RoleName(string(long)), RoleName(chosen))
	one, other := RoleName(string(long)), RoleName(string(long[:252])+"b")
	assert.LessOrEqual(t, len(one), 253)
	assert.NotEqual(t, one, other)
}

func TestOnlyRacesArePassedOver(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{}, "x", errCrash)
	exists := apierrors.NewAlreadyExists(schema.GroupResource{}, "x")
	assert.True(t, raced(fmt.Errorf("write: %w", conflict)))
	assert.True(t, raced(errors.Join(conflict, nil, exists, errAgain)))
	assert.False(t, raced(errors.Join(conflict, ErrForeign)))
	assert.False(t, raced(nil))
}
