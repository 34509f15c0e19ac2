// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// An owner of a namespace may write any owner reference into its own workloads.
func TestCommandsEndDespiteControllersInACycle(t *testing.T) {
	web := func(uid types.UID, controller string, of types.UID) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: uid, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: controller, Name: "web", UID: of, Controller: new(true)},
		}}
	}
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	for name, there := range map[string][]client.Object{
		"a workload that controls itself": {&appsv1.Deployment{ObjectMeta: web("d", "Deployment", "d")}},
		"two workloads":                   {&appsv1.Deployment{ObjectMeta: web("d", "StatefulSet", "s")}, &appsv1.StatefulSet{ObjectMeta: web("s", "Deployment", "d")}},
		"other uids":                      {&appsv1.Deployment{ObjectMeta: web("d", "StatefulSet", "other")}, &appsv1.StatefulSet{ObjectMeta: web("s", "Deployment", "other")}},
	} {
		reads := 0
		c := fake.NewClientBuilder().WithObjects(append(there, shop)...).WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if reads++; reads > 20 {
					return errors.New("a read without end")
				}
				return c.Get(ctx, key, o, options...)
			},
		}).Build()
		_, err := findSlots(t.Context(), cluster{WithWatch: c}, "shop", []string{"deployment/web"})
		assert.LessOrEqual(t, reads, 20, name)
		if err != nil {
			assert.NotContains(t, err.Error(), "a read without end", name)
		}
	}
}

// A user of a namespace invents owner references, so that a command acts on the slots of another
// workload.
func TestInventedOwnersAddNoSlotsToCommands(t *testing.T) {
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: claim}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "biller"}}
	tool := func(version, kind, name string, uid types.UID) metav1.ObjectMeta {
		return edit(meta("tool", nil), func(m *metav1.ObjectMeta) {
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: uid, Controller: new(true)}}
		})
	}
	set := func(m metav1.ObjectMeta) client.Object {
		return &appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Template: template}}
	}
	pod := func(name, kind, of string, labels map[string]string) client.Object {
		p := waiting(name, "once.ledger")
		p.ObjectMeta = owned(p.ObjectMeta, "apps/v1", kind, of)
		maps.Copy(p.Labels, labels)
		return p
	}
	there := func(more ...client.Object) []client.Object {
		all := deployment(claim, claim)
		all[1].(*appsv1.ReplicaSet).Spec.Selector = selector
		return append(all, &appsv1.StatefulSet{ObjectMeta: meta("db", claim), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}},
			more[0], slotLease(slot, "", nil), slotLease("once.ledger", "", nil))
	}
	ofBiller := map[string]string{"app": "biller"}
	for name, c := range map[string]struct {
		forged client.Object
		named  string
		want   []string
	}{
		"a Deployment of a Deployment": {
			&appsv1.Deployment{ObjectMeta: tool("apps/v1", "Deployment", "biller", "biller-uid"), Spec: appsv1.DeploymentSpec{Template: template}},
			"deployment/tool", []string{"singleton.deployment.tool"},
		},
		"a ReplicaSet of another uid":      {set(tool("apps/v1", "Deployment", "biller", "other")), "replicaset/tool", []string{"singleton.replicaset.tool"}},
		"a ReplicaSet of another group":    {set(tool("evil.example/v1", "Deployment", "biller", "x")), "replicaset/tool", []string{"singleton.replicaset.tool"}},
		"a ReplicaSet of other letters":    {set(tool("apps/v1", "deployment", "biller", "biller-uid")), "replicaset/tool", []string{"singleton.replicaset.tool"}},
		"a ReplicaSet of an invented pod":  {set(tool("v1", "Pod", "biller-0", "x")), "replicaset/tool", []string{"singleton.replicaset.tool"}},
		"a ReplicaSet of a custom object":  {set(tool("argoproj.io/v1alpha1", "Rollout", "tool", "x")), "replicaset/tool", []string{"singleton.rollout-argoproj-io.tool"}},
		"a pod of the Deployment itself":   {pod("evil", "Deployment", "biller", ofBiller), "deployment/biller", []string{slot}},
		"a pod with other labels":          {pod("evil", "ReplicaSet", "biller-1", nil), "deployment/biller", []string{slot}},
		"a pod with a foreign name":        {pod("evil", "StatefulSet", "db", ofBiller), "statefulset/db", []string{"singleton.statefulset.db"}},
		"an honest pod of the StatefulSet": {pod("db-1", "StatefulSet", "db", ofBiller), "statefulset/db", []string{"once.ledger", "singleton.statefulset.db"}},
		"an honest pod of the Deployment":  {pod("biller-1-x", "ReplicaSet", "biller-1", ofBiller), "deployment/biller", []string{"once.ledger", slot}},
	} {
		t.Run(name, func(t *testing.T) {
			c0 := cluster{WithWatch: newByHand(there(c.forged)...)}
			s, err := findSlots(t.Context(), c0, "shop", []string{c.named})
			require.NoError(t, err)
			assert.Equal(t, c.want, s.slots)
		})
	}
}

// edit returns the metadata after a change.
func edit(m metav1.ObjectMeta, change func(*metav1.ObjectMeta)) metav1.ObjectMeta {
	change(&m)
	return m
}

// A client that makes a Job from a CronJob need not claim to be the Job's controller, and may name an
// earlier version of the API.
func TestJobMadeByHandBelongsToItsCronJob(t *testing.T) {
	cron := &batchv1.CronJob{ObjectMeta: meta("nightly", claim)}
	for version, uid := range map[string]types.UID{"batch/v1": cron.UID, "batch/v1beta1": cron.UID, "batch/v1 ": "another"} {
		job := &batchv1.Job{ObjectMeta: edit(meta("by-hand", nil), func(m *metav1.ObjectMeta) {
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: strings.TrimSpace(version), Kind: "CronJob", Name: "nightly", UID: uid}}
		})}
		e := &explainer{cluster: cluster{WithWatch: fake.NewClientBuilder().WithObjects(cron, job).Build()}, namespace: "shop"}
		require.NoError(t, e.find(t.Context(), "Job", "by-hand"))
		want := "CronJob/nightly"
		if uid != cron.UID {
			want = "Job/by-hand"
		}
		assert.Equal(t, want, e.group.String(), version)
	}
}

// OpenShift and Knative make another controller for each version, as the webhook knows.
func TestPodsOfEachVersionBelongToOneWorkload(t *testing.T) {
	by := func(version, kind, name string) func(*metav1.ObjectMeta) {
		return func(m *metav1.ObjectMeta) {
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: name, UID: types.UID(name + "-uid"), Controller: new(true)}}
		}
	}
	pod := func(name, version, kind, of string) *corev1.Pod {
		p := waiting(name, slot)
		p.ObjectMeta = edit(p.ObjectMeta, by(version, kind, of))
		return p
	}
	deployment := &appsv1.Deployment{ObjectMeta: edit(meta("shop-00002", nil), by("serving.knative.dev/v1", "Revision", "shop-00002"))}
	deployment.Labels = map[string]string{"serving.knative.dev/service": "shop"}
	deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"rev": "2"}}
	deployment.Spec.Template.Annotations = claim
	set := &appsv1.ReplicaSet{ObjectMeta: edit(meta("shop-00002-5d4f", nil), by("apps/v1", "Deployment", "shop-00002"))}
	set.Spec.Template.Annotations = claim
	there := fake.NewClientBuilder().WithObjects(deployment, set,
		&corev1.ReplicationController{ObjectMeta: edit(meta("worker-2", nil), by("apps.openshift.io/v1", "DeploymentConfig", "worker"))},
		pod("worker-2-x", "v1", "ReplicationController", "worker-2"), pod("shop-00002-x", "apps/v1", "ReplicaSet", "shop-00002-5d4f"),
	).Build()
	for named, want := range map[string]string{
		"Pod/worker-2-x":             "DeploymentConfig.apps.openshift.io/worker",
		"Pod/shop-00002-x":           "Service.serving.knative.dev/shop",
		"ReplicaSet/shop-00002-5d4f": "Service.serving.knative.dev/shop",
		"Deployment/shop-00002":      "Service.serving.knative.dev/shop",
	} {
		e := &explainer{cluster: cluster{WithWatch: there}, namespace: "shop"}
		kind, name, _ := strings.Cut(named, "/")
		require.NoError(t, e.find(t.Context(), kind, name), named)
		assert.Equal(t, want, e.group.String(), named)
		if kind != "Pod" || name == "shop-00002-x" {
			assert.Contains(t, e.slots, "singleton.service-serving-knative-dev.shop", named)
			assert.Len(t, e.pods, 1, named)
		}
	}
}
