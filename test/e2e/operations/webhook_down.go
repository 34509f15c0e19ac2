// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// While the webhook is down, people and controllers may still change annotated workloads. The policies
// refuse only pods without their gate, and changes of annotations that the webhook would have to carry
// to the pod template.
func TestWebhookOutageBlocksOnlyNewAnnotatedObjects(t *testing.T) {
	h := holder.Deploy(t, app.Lasting("edited"), "it needs the record")
	_, err := webhook.Try(h.Space, app.Bare(h.Space, "before", webhook.Claims))
	require.NoError(t, err)
	h.Await(space.Soon, "the holder's pod is the last that is deleted", func() bool {
		return h.Pod(h.Victim.Name).Annotations[api.DeletionCostAnnotation] == api.HolderDeletionCost
	})
	webhook.TakeAway(t)

	t.Run("new annotated pods are refused", func(t *testing.T) {
		for range 10 {
			webhook.Refused(h.Space, app.Bare(h.Space, "annotated", webhook.Claims), `failed calling webhook "pods.metaparticle.io"`)
		}
	})
	t.Run("new annotated workloads are refused", func(t *testing.T) { refusesNewWorkloads(t, h.Space) })
	t.Run("unannotated ones of the same namespace start", func(t *testing.T) {
		pod, err := h.Client.CoreV1().Pods(h.Namespace).Create(t.Context(), app.Bare(h.Space, "plain", nil), metav1.CreateOptions{})
		require.NoError(t, err)
		h.Await(space.StartTimeout, "it runs", func() bool {
			now := h.Pod(pod.Name)
			return now != nil && status.ContainersRun(now)
		})
		plain := app.App{Name: "plain-too", Replicas: 1}
		_, err = h.Client.AppsV1().Deployments(h.Namespace).Create(t.Context(), app.Deployment(h.Space, plain), metav1.CreateOptions{})
		assert.NoError(t, err)
	})
	t.Run("a deleted webhook configuration lets no annotated pod pass", func(t *testing.T) { refusesWithoutConfiguration(t, h.Space) })
	editsAndRollsOut(t, h)
}

// refusesNewWorkloads checks that each type of workload is refused whose annotations the webhook would
// have to carry.
func refusesNewWorkloads(t *testing.T, s *space.Space) {
	a := app.Singleton("annotated")
	objects := map[string]runtime.Object{
		"deployments": app.Deployment(s, a), "statefulsets": app.StatefulSet(s, a), "cronjobs": app.CronJob(s, a),
		"replicasets": &appsv1.ReplicaSet{ObjectMeta: app.Meta(s, a), Spec: appsv1.ReplicaSetSpec{Selector: a.Selector(), Template: app.Template(s, a)}},
		"daemonsets":  &appsv1.DaemonSet{ObjectMeta: app.Meta(s, a), Spec: appsv1.DaemonSetSpec{Selector: a.Selector(), Template: app.Template(s, a)}},
		"jobs":        &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: app.Job(s, a).Spec},
	}
	for resource, object := range objects {
		client := s.Client.AppsV1().RESTClient()
		if resource == "cronjobs" || resource == "jobs" {
			client = s.Client.BatchV1().RESTClient()
		}
		err := client.Post().Namespace(s.Namespace).Resource(resource).Param("dryRun", metav1.DryRunAll).Body(object).Do(t.Context()).Error()
		assert.True(t, apierrors.IsForbidden(err), "%s: %v", resource, err)
		assert.Regexp(t, "NotCarried: the pod template lacks .*metaparticle.io/singleton.* of the workload", fmt.Sprint(err), resource)
	}
}

// refusesWithoutConfiguration deletes the webhook configuration for a while.
func refusesWithoutConfiguration(t *testing.T, s *space.Space) {
	ctx := context.Background()
	configurations := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	saved, err := configurations.Get(ctx, webhook.Configuration, metav1.GetOptions{})
	require.NoError(t, err)
	require.NoError(t, configurations.Delete(ctx, webhook.Configuration, metav1.DeleteOptions{}))
	t.Cleanup(func() {
		saved.ObjectMeta = metav1.ObjectMeta{Name: saved.Name, Labels: saved.Labels, Annotations: saved.Annotations}
		_, err := configurations.Create(ctx, saved, metav1.CreateOptions{})
		require.NoError(t, err)
	})
	s.Await(space.Soon, "the API server has learnt of it", func() bool {
		_, err := webhook.Try(s, app.Bare(s, "orphan", webhook.Claims))
		return apierrors.IsForbidden(err)
	})
	webhook.Refused(s, app.Bare(s, "orphan", webhook.Claims), `NotInjected: the pod has metaparticle.io/singleton, but no gate was injected: `+
		`the webhook configuration "metaparticle" is missing or was changed, or another webhook added the annotation after ours had passed`)
	webhook.Refused(s, app.Bare(s, "orphan", map[string]string{api.AfterAnnotation: "lock.a"}), "NotInjected: the pod has metaparticle.io/after")
	webhook.Refused(s, app.Bare(s, "orphan", map[string]string{api.BarrierAnnotation: "warm=3"}), "NotInjected: the pod has metaparticle.io/barrier")
	_, err = webhook.Try(s, app.Bare(s, "plain-orphan", nil))
	assert.NoError(t, err)
}

// editsAndRollsOut edits the holder's Deployment while the webhook is down. Once the webhook is back,
// the rollout goes through.
func editsAndRollsOut(t *testing.T, h holder.Holder) {
	deployments := h.Client.AppsV1().Deployments(h.Namespace)
	settled := func(what string, holds func(*appsv1.Deployment) bool) {
		t.Helper()
		h.Await(space.StartTimeout, what, func() bool {
			d, err := deployments.Get(t.Context(), h.App.Name, metav1.GetOptions{})
			require.NoError(t, err)
			return d.Status.ObservedGeneration == d.Generation && holds(d)
		})
	}
	kubectl.Must(h.Space, "", "scale", "deployment/edited", "--replicas=1")
	settled("scaled down", func(d *appsv1.Deployment) bool { return d.Status.Replicas == 1 && d.Status.ReadyReplicas == 1 })
	kubectl.Must(h.Space, "", "set", "env", "deployment/edited", "EDITED=true")
	settled("edited: its pods wait for the webhook", func(d *appsv1.Deployment) bool {
		return failing(d) && d.Status.UpdatedReplicas == 0
	})
	kubectl.Must(h.Space, "", "rollout", "undo", "deployment/edited")
	settled("rolled back", func(d *appsv1.Deployment) bool { return !failing(d) && d.Status.UpdatedReplicas == 1 })
	kubectl.Must(h.Space, "", "annotate", "deployment/edited", "example.com/note=hello")
	kubectl.Must(h.Space, "", "rollout", "restart", "deployment/edited")
	kubectl.Must(h.Space, "", "scale", "deployment/edited", "--replicas=2")
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the application runs on")

	for what, test := range map[string]struct{ key, value, message string }{
		"a claim more": {api.LockAnnotation, "=nightly", "NotCarried: the pod template lacks metaparticle.io/lock of the workload"},
		"another one":  {api.SingletonAnnotation, "=main", "NotCarried: the pod template lacks metaparticle.io/singleton of the workload"},
		"none":         {api.SingletonAnnotation, "-", "NotCarried: the pod template still has metaparticle.io/singleton, which was taken off the workload"},
	} {
		t.Run(what, func(t *testing.T) {
			out, err := kubectl.Run(h.Space, "", "annotate", "--overwrite", "deployment/edited", test.key+test.value)
			assert.Error(t, err)
			assert.Contains(t, out, test.message)
		})
	}
	t.Run("both at once", func(t *testing.T) {
		// This patch writes the annotation into the workload and also into the pod template. So no
		// webhook has to carry the annotation.
		const patch = `{"metadata":{"annotations":{"metaparticle.io/on-loss":"restart"}},` +
			`"spec":{"template":{"metadata":{"annotations":{"metaparticle.io/on-loss":"restart"}}}}}`
		kubectl.Must(h.Space, "", "patch", "deployment/edited", "-p", patch)
	})
	webhook.Scale(t, 2)
	// The ReplicaSet's controller has failed so often that its next attempt to create a pod may be
	// more than a minute away. A change of the ReplicaSet causes an attempt immediately. If this attempt
	// failed, too, the next attempt could come after the test's timeout. So the API server must first
	// reach the webhook.
	webhook.AwaitGating(h.Space)
	kubectl.Must(h.Space, "", "annotate", "replicaset", "--all", "example.com/note=hello")
	settled("the webhook is back: the rollout goes through", func(d *appsv1.Deployment) bool {
		return d.Status.UpdatedReplicas == 2 && d.Status.Replicas == 2 && d.Status.ReadyReplicas == 2
	})
	for _, pod := range h.Pods(h.App.Name) {
		if pod.DeletionTimestamp == nil {
			assert.Equal(t, api.Gated, pod.Labels[api.GatedLabel], pod.Name)
		}
	}
}

// failing reports whether the Deployment fails to create its pods.
func failing(d *appsv1.Deployment) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
