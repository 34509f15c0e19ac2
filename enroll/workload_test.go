// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"errors"
	"fmt"
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

func TestEnrollMakesLeasesBeforeTheWorkloadHasPods(t *testing.T) {
	owned := deployment(singleton, singleton)
	owned.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "example.com/v1", Kind: "Shop", Name: "s", UID: "u", Controller: new(true),
	}}
	tests := map[string]struct {
		workload client.Object
		lease    string
		account  string
	}{
		"annotation on the workload": {deployment(singleton, nil), "singleton.deployment.biller", "till"},
		"annotation on its template": {deployment(nil, singleton), "singleton.deployment.biller", "till"},
		"default account":            {cronJob(singleton), "singleton.cronjob.nightly", "default"},
		"controlled by another":      {owned, "", ""},
		"claim set to false":         {deployment(map[string]string{api.SingletonAnnotation: "false"}, nil), "", ""},
		"malformed claim":            {deployment(map[string]string{api.SingletonAnnotation: "yes"}, nil), "", ""},
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
			named := []string{test.lease}
			if api.HasNextLease(test.lease) {
				named = withNext(test.lease)
			}
			assert.Equal(t, named, w.role(test.account).Rules[0].ResourceNames)
		})
	}
}

func TestSweepKeepsLeaseOfWorkloadWithoutPods(t *testing.T) {
	w := newWorld(t, cronJob(singleton))
	r := w.process()
	w.settle(r)
	w.now = w.now.Add(time.Hour)
	assert.Zero(t, w.settle(r))
	assert.NotNil(t, w.lease("singleton.cronjob.nightly"))
}

func TestAnnotatedButUngatedWorkloadGetsOneEvent(t *testing.T) {
	w := newWorld(t, deployment(singleton, nil))
	r := w.process()
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "biller NotGated: ")
	assert.Contains(t, w.events[0], "kubectl -n shop rollout restart deployment/biller")
}

// The pods of a misspelt claim run without a gate, too, if it was written before the opt-in.
func TestMistakenClaimThatWasNotCarriedGetsAnEvent(t *testing.T) {
	misspelt := map[string]string{api.Prefix + "singelton": "true"}
	w := newWorld(t, deployment(misspelt, nil))
	w.settle(w.process())
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "biller NotGated: ")
	w = newWorld(t, deployment(misspelt, misspelt))
	w.settle(w.process())
	assert.Empty(t, w.events, "its pods are refused")
}

func TestTemplateAnnotationOverridesWorkloadAnnotation(t *testing.T) {
	w := newWorld(t, deployment(
		map[string]string{api.LockAnnotation: "on-the-workload"},
		map[string]string{api.LockAnnotation: "on-the-template"},
	))
	w.settle(w.process())
	assert.NotNil(t, w.lease("lock.on-the-template"), "the next pods claim this lock")
	assert.Nil(t, w.lease("lock.on-the-workload"), "no pod claims this lock")
}

func TestAnnotatedPodsWithoutAGateAreReported(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: shop, Name: "a", Labels: map[string]string{"app": "biller"}, Annotations: singleton,
	}}
	w := newWorld(t, deployment(singleton, singleton), pod)
	w.settle(w.process())
	assert.Len(t, w.events, 1)
}

func TestUngatedPodsAreNotReportedDuringARollout(t *testing.T) {
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

func TestNamespaceOptOutRevokesWebhooksPullSecretsAccess(t *testing.T) {
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

// The cache may drop only fields that enroll does not read: the claims of a stripped
// pod and of the whole pod must be equal.
func TestEnrollCacheKeepsEveryFieldThatEnrollReads(t *testing.T) {
	before, after := newClaims(), newClaims()
	for gate, test := range gates {
		pod := lasting(gated("a", "till", "lock."+gate), "60s")
		pod.Spec = test.spec
		pod.Spec.ServiceAccountName = "till"
		pod.Status.Phase = corev1.PodRunning
		before.addPod(pod, false)
		stripped, err := strip(pod.DeepCopy())
		require.NoError(t, err)
		after.addPod(stripped.(*corev1.Pod), false)
	}
	assert.Len(t, before.Claims, 4)
	assert.Equal(t, before.Claims, after.Claims)

	pod := waiting("b", "till", "lock.a", "once.schema")
	stripped, err := strip(pod.DeepCopy())
	require.NoError(t, err)
	require.Len(t, awaitedBy(pod), 2)
	assert.Equal(t, awaitedBy(pod), awaitedBy(stripped.(*corev1.Pod)))

	for _, object := range []client.Object{deployment(singleton, nil), deployment(nil, singleton), cronJob(singleton)} {
		object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl"}})
		whole := object.DeepCopyObject().(client.Object)
		bare, err := strip(object)
		require.NoError(t, err)
		assert.Empty(t, object.GetManagedFields())
		assert.Equal(t, selector(whole), selector(bare.(client.Object)))
		assert.Equal(t, whole.GetAnnotations(), bare.(client.Object).GetAnnotations())
		assert.Equal(t, template(whole).Annotations, template(bare.(client.Object)).Annotations)
		assert.Equal(t, template(whole).Spec.ServiceAccountName, template(bare.(client.Object)).Spec.ServiceAccountName)
	}
}

func TestEnrollReportsAllErrorsExceptWriteConflicts(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{}, "x", errCrash)
	exists := apierrors.NewAlreadyExists(schema.GroupResource{}, "x")
	assert.True(t, raced(fmt.Errorf("write: %w", conflict)))
	assert.True(t, raced(errors.Join(conflict, nil, exists, errAgain)))
	assert.False(t, raced(errors.Join(conflict, ErrForeign)))
	assert.False(t, raced(nil))
}
