// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// While the webhook is down, people and controllers change annotated workloads as
// ever. Only what would have to be carried to a template is refused.
func TestWebhookDownStillScalesEditsAndRollsBackTheAnnotated(t *testing.T) {
	h := deployHolding(t, lasting("edited"), "it needs the record")
	deployments := h.client.AppsV1().Deployments(h.name)
	settled := func(what string, holds func(*appsv1.Deployment) bool) {
		t.Helper()
		h.await(startTimeout, what, func() bool {
			d, err := deployments.Get(t.Context(), h.a.name, metav1.GetOptions{})
			require.NoError(t, err)
			return d.Status.ObservedGeneration == d.Generation && holds(d)
		})
	}
	h.await(soon, "the holder's pod is the last that is deleted", func() bool {
		return h.pod(h.victim.Name).Annotations[api.DeletionCostAnnotation] == api.HolderDeletionCost
	})
	webhookScale(t, 0)
	t.Cleanup(func() { webhookScale(t, 2) })
	// A replica that is still ending answers on connections that it has.
	h.await(startTimeout, "the webhook's pods are gone", func() bool {
		pods, err := h.client.CoreV1().Pods(systemNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + webhookName})
		return err == nil && len(pods.Items) == 0
	})

	h.mustKubectl("", "scale", "deployment/edited", "--replicas=1")
	settled("scaled down", func(d *appsv1.Deployment) bool { return d.Status.Replicas == 1 && d.Status.ReadyReplicas == 1 })
	h.mustKubectl("", "set", "env", "deployment/edited", "EDITED=true")
	settled("edited: its pods wait for the webhook", func(d *appsv1.Deployment) bool {
		return failing(d) && d.Status.UpdatedReplicas == 0
	})
	h.mustKubectl("", "rollout", "undo", "deployment/edited")
	settled("rolled back", func(d *appsv1.Deployment) bool { return !failing(d) && d.Status.UpdatedReplicas == 1 })
	h.mustKubectl("", "annotate", "deployment/edited", "example.com/note=hello")
	h.mustKubectl("", "rollout", "restart", "deployment/edited")
	h.mustKubectl("", "scale", "deployment/edited", "--replicas=2")
	assert.Equal(t, h.before.ID, h.awaitRunning(h.a, soon).ID, "the application runs on")

	for what, test := range map[string]struct{ key, value, message string }{
		"a claim more": {api.LockAnnotation, "=nightly", "NotCarried: the pod template lacks metaparticle.io/lock of the workload"},
		"another one":  {api.SingletonAnnotation, "=main", "NotCarried: the pod template lacks metaparticle.io/singleton of the workload"},
		"none":         {api.SingletonAnnotation, "-", "NotCarried: the pod template still has metaparticle.io/singleton, which was taken off the workload"},
	} {
		t.Run(what, func(t *testing.T) {
			out, err := h.kubectl("", "annotate", "--overwrite", "deployment/edited", test.key+test.value)
			assert.Error(t, err)
			assert.Contains(t, out, test.message)
		})
	}
	t.Run("both at once", func(t *testing.T) {
		// The way out: who writes the template, too, needs nothing carried.
		const patch = `{"metadata":{"annotations":{"metaparticle.io/on-loss":"restart"}},` +
			`"spec":{"template":{"metadata":{"annotations":{"metaparticle.io/on-loss":"restart"}}}}}`
		h.mustKubectl("", "patch", "deployment/edited", "-p", patch)
	})
	webhookScale(t, 2)
	settled("the webhook is back: the rollout goes through", func(d *appsv1.Deployment) bool {
		return d.Status.UpdatedReplicas == 2 && d.Status.Replicas == 2 && d.Status.ReadyReplicas == 2
	})
	for _, pod := range h.all(h.a.name) {
		if pod.DeletionTimestamp == nil {
			assert.Equal(t, api.Gated, pod.Labels[api.GatedLabel], pod.Name)
		}
	}
}

// failing tells that the Deployment's pods cannot be created.
func failing(d *appsv1.Deployment) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
