// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/metaparticle-io/metaparticle/api"
)

// named is the metadata of an object with a controller, if one is given.
func named(name string, controller ...metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-uid"), OwnerReferences: controller}
}

func controlledBy(version, kind, name string) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: version, Kind: kind, Name: name, UID: types.UID(name + "-uid"), Controller: new(true),
	}
}

func template(container string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: container}}}}
}

func revision(t *testing.T, name, container string, controller metav1.OwnerReference) *appsv1.ControllerRevision {
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"template": template(container)}})
	require.NoError(t, err)
	return &appsv1.ControllerRevision{ObjectMeta: named(name, controller), Data: runtime.RawExtension{Raw: data}}
}

func pod(hash string, controller ...metav1.OwnerReference) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: named("p", controller...)}
	p.Labels = map[string]string{appsv1.ControllerRevisionHashLabelKey: hash}
	return p
}

func TestGroupIsTheTopMostWorkload(t *testing.T) {
	set := &appsv1.ReplicaSet{ObjectMeta: named("biller-1", controlledBy("apps/v1", "Deployment", "biller"))}
	set.Spec.Template = template("of-the-set")
	rollout := &appsv1.ReplicaSet{ObjectMeta: named("ledger-1", controlledBy("argoproj.io/v1alpha1", "Rollout", "ledger"))}
	rollout.Spec.Template = template("of-the-rollout")
	bare := &appsv1.ReplicaSet{ObjectMeta: named("bare")}
	bare.Spec.Template = template("may-have-changed")
	job := &batchv1.Job{ObjectMeta: named("nightly-1", controlledBy("batch/v1", "CronJob", "nightly"))}
	job.Spec.Template = template("of-the-job")
	once := &batchv1.Job{ObjectMeta: named("once")}
	once.Spec.Template = template("of-the-job")
	db := controlledBy("apps/v1", "StatefulSet", "db")
	node := controlledBy("apps/v1", "DaemonSet", "node")
	c := fake.NewClientBuilder().WithObjects(set, rollout, bare, job, once,
		revision(t, "db-abc", "of-the-revision", db),
		revision(t, "node-abc", "of-the-revision", node),
		revision(t, "db-foreign", "of-another", controlledBy("apps/v1", "StatefulSet", "other")),
	).Build()

	tests := map[string]struct {
		pod       *corev1.Pod
		group     api.Workload
		container string // of the template; empty if that is not certain
	}{
		"nobody's":                  {pod(""), api.Workload{Kind: "Pod", Name: "p"}, ""},
		"Deployment's":              {pod("", controlledBy("apps/v1", "ReplicaSet", "biller-1")), api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, "of-the-set"},
		"somebody's ReplicaSet":     {pod("", controlledBy("apps/v1", "ReplicaSet", "ledger-1")), api.Workload{Group: "argoproj.io", Kind: "Rollout", Name: "ledger"}, "of-the-rollout"},
		"bare ReplicaSet's":         {pod("", controlledBy("apps/v1", "ReplicaSet", "bare")), api.Workload{Group: "apps", Kind: "ReplicaSet", Name: "bare"}, ""},
		"CronJob's":                 {pod("", controlledBy("batch/v1", "Job", "nightly-1")), api.Workload{Group: "batch", Kind: "CronJob", Name: "nightly"}, "of-the-job"},
		"Job's":                     {pod("", controlledBy("batch/v1", "Job", "once")), api.Workload{Group: "batch", Kind: "Job", Name: "once"}, "of-the-job"},
		"StatefulSet's":             {pod("db-abc", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, "of-the-revision"},
		"DaemonSet's":               {pod("abc", node), api.Workload{Group: "apps", Kind: "DaemonSet", Name: "node"}, "of-the-revision"},
		"revision is gone":          {pod("db-gone", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, ""},
		"revision is not its own":   {pod("db-foreign", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, ""},
		"of a kind we do not know":  {pod("", controlledBy("example.com/v1", "Shop", "s")), api.Workload{Group: "example.com", Kind: "Shop", Name: "s"}, ""},
		"ReplicaSet of other group": {pod("", controlledBy("example.com/v1", "ReplicaSet", "biller-1")), api.Workload{Group: "example.com", Kind: "ReplicaSet", Name: "biller-1"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			group, template, err := owners{c}.Workload(t.Context(), "shop", test.pod)
			require.NoError(t, err)
			assert.Equal(t, test.group, group)
			if test.container == "" {
				assert.Nil(t, template)
				return
			}
			require.NotNil(t, template)
			assert.Equal(t, test.container, template.Containers[0].Name)
		})
	}
}

func TestAnOwnerThatIsGoneOrReplacedIsAnError(t *testing.T) {
	set := &appsv1.ReplicaSet{ObjectMeta: named("biller-1")}
	set.UID = "another"
	c := fake.NewClientBuilder().WithObjects(set).Build()
	_, _, err := owners{c}.Workload(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "biller-1")))
	require.ErrorIs(t, err, errReplaced)
	_, _, err = owners{c}.Workload(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "gone")))
	require.Error(t, err)
}

func TestLimitRangesAreTheNamespacesOwn(t *testing.T) {
	c := fake.NewClientBuilder().WithObjects(
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}},
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "b"}},
	).Build()
	ranges, err := limits{client.Reader(c)}.LimitRanges(t.Context(), "shop")
	require.NoError(t, err)
	require.Len(t, ranges, 1)
	assert.Equal(t, "a", ranges[0].Name)
}
