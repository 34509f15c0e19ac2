// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// handsOver deletes the holder of a group of pods and wants another start of
// the application, by a release. The kubelet may hear of the deletion late, so what
// counts is for how long nobody ran. The lease has to be a lasting one.
func (s *space) handsOver(a app) {
	s.Helper()
	require.Equal(s, lastingLease.String(), a.annotations[api.LeaseDurationAnnotation])
	before := s.awaitRunning(a, startTimeout)
	s.deletePod(s.pod(before.Pod))
	s.await(startTimeout, a.name+" runs again", func() bool { return s.after(a, before) != nil })
	assert.Less(s, s.vacancyAfter(a, before), released, "%s: by a release", a.name)
}

// fresher tells whether one runs that started after an instant, in a pod that
// is not going.
func (s *space) fresher(a app, before *record.Process) bool {
	now := s.after(a, before)
	if now == nil {
		return false
	}
	pod := s.pod(now.Pod)
	return pod != nil && pod.DeletionTimestamp == nil && string(pod.UID) != before.UID
}

// All in one namespace, each alone under its own name, at once.
//
// compat: kinds/replica-set kinds/deployment-recreate kinds/stateful-set kinds/stateful-set-parallel kinds/daemon-set carried
func TestEachKindRollsOutAndRunsOne(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	ctx := t.Context()
	two := func(name string) app { a := lasting(name); a.replicas = 2; return a }
	set, recreate, ordered, parallel, daemon := two("set"), two("recreate"), two("ordered"), two("parallel"), lasting("daemon")

	_, err := s.client.AppsV1().ReplicaSets(s.name).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: s.meta(set),
		Spec: appsv1.ReplicaSetSpec{Replicas: set.count(), Selector: set.selector(), Template: s.template(set)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	deployment := s.deployment(recreate)
	deployment.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	_, err = s.client.AppsV1().Deployments(s.name).Create(ctx, deployment, metav1.CreateOptions{})
	require.NoError(t, err)
	one := s.statefulSet(ordered)
	one.Spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	for _, stateful := range []*appsv1.StatefulSet{one, s.statefulSet(parallel)} {
		_, err = s.client.AppsV1().StatefulSets(s.name).Create(ctx, stateful, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	_, err = s.client.AppsV1().DaemonSets(s.name).Create(ctx, &appsv1.DaemonSet{ObjectMeta: s.meta(daemon),
		Spec: appsv1.DaemonSetSpec{Selector: daemon.selector(), Template: s.template(daemon)}}, metav1.CreateOptions{})
	require.NoError(t, err)

	all := []app{set, recreate, ordered, parallel, daemon}
	for _, a := range all {
		s.awaitGated(a)
	}
	rolls := map[string]string{"recreate": "deployment", "ordered": "statefulset", "parallel": "statefulset", "daemon": "daemonset"}
	before := map[string]*record.Process{}
	for _, a := range all {
		before[a.name] = s.awaitRunning(a, startTimeout)
		if kind := rolls[a.name]; kind != "" {
			s.mustKubectl("", "rollout", "restart", kind+"/"+a.name)
		}
	}
	s.handsOver(set)
	for _, a := range all[1:] {
		s.mustKubectl("", "rollout", "status", rolls[a.name]+"/"+a.name, rolloutTimeout)
		s.await(startTimeout, a.name+" runs in a new pod", func() bool { return s.fresher(a, before[a.name]) })
	}
}

// short is a Job whose application comes to its end by itself.
func (s *space) short(name string, edit func(*batchv1.JobSpec), args ...string) (app, *batchv1.Job) {
	s.Helper()
	a := lasting(name)
	a.args = args
	job := &batchv1.Job{ObjectMeta: s.meta(a), Spec: s.job(a).Spec}
	edit(&job.Spec)
	job, err := s.client.BatchV1().Jobs(s.name).Create(s.Context(), job, metav1.CreateOptions{})
	require.NoError(s, err)
	return a, job
}

func (s *space) jobNow(name string) *batchv1.Job {
	job, err := s.client.BatchV1().Jobs(s.name).Get(s.Context(), name, metav1.GetOptions{})
	require.NoError(s, err)
	return job
}

// compat: kinds/job kinds/job-parallel kinds/job-indexed kinds/job-failure-policy kinds/job-suspend lifecycle/restart-on-failure carried
func TestJobsEndAsTheyWouldAndOneAtATime(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	three, two, yes, indexed := int32(3), int32(2), true, batchv1.IndexedCompletion
	parallel, _ := s.short("parallel", func(j *batchv1.JobSpec) { j.Completions, j.Parallelism = &three, &three }, "-run-for=300ms")
	index, _ := s.short("indexed", func(j *batchv1.JobSpec) {
		j.Completions, j.Parallelism, j.CompletionMode = &three, &two, &indexed
	}, "-run-for=300ms")
	_, _ = s.short("fails", func(j *batchv1.JobSpec) {
		j.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
		}}}
	}, "-run-for=100ms", "-exit-code=42")
	suspended, _ := s.short("suspended", func(j *batchv1.JobSpec) { j.Suspend = &yes }, "-stop-delay=100ms")

	for _, a := range []app{parallel, index} {
		s.await(startTimeout, a.name+" is complete", func() bool { return complete(s.jobNow(a.name)) })
		assert.Len(t, s.record(a.name), 3)
	}
	assert.Equal(t, "0-2", s.jobNow("indexed").Status.CompletedIndexes)

	s.await(startTimeout, "the failure policy has ended the Job", func() bool {
		for _, c := range s.jobNow("fails").Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				return assert.Equal(t, batchv1.JobReasonPodFailurePolicy, c.Reason)
			}
		}
		return false
	})
	assert.Len(t, s.record("fails"), 1, "tried once")

	suspend := func(is bool) {
		patch := fmt.Appendf(nil, `{"spec":{"suspend":%v}}`, is)
		_, err := s.client.BatchV1().Jobs(s.name).Patch(t.Context(), suspended.name, types.MergePatchType, patch, metav1.PatchOptions{})
		require.NoError(t, err)
	}
	assert.Empty(t, s.all(suspended.name))
	suspend(false)
	first := s.awaitRunning(suspended, startTimeout)
	suspend(true)
	s.await(startTimeout, "its pod is gone", func() bool { return len(s.all(suspended.name)) == 0 })
	suspend(false)
	s.await(startTimeout, "it runs again", func() bool { return s.after(suspended, first) != nil })
}

// A controller that this project has never heard of: its kind is a
// CustomResourceDefinition, and its pods are the test's.
//
// compat: kinds/custom carried
func TestPodsOfACustomControllerAreOneGroup(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	group := s.name + ".example.com"
	definition := fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"robots.%[1]s"},
		"spec":{"group":"%[1]s","scope":"Namespaced","names":{"plural":"robots","singular":"robot","kind":"Robot"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, group)
	s.mustKubectl(definition, "apply", "-f", "-")
	t.Cleanup(func() {
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/robots." + group
		assert.NoError(t, cluster.client.CoreV1().RESTClient().Delete().AbsPath(path).Do(context.Background()).Error())
	})
	s.mustKubectl("", "wait", "--for=condition=Established", "customresourcedefinition/robots."+group, rolloutTimeout)
	robot := fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Robot","metadata":{"name":"marvin"}}`, group)
	// What is established is discovered a moment later.
	s.await(soon, "a robot", func() bool { _, err := s.kubectl(robot, "apply", "-f", "-"); return err == nil })
	uid := s.mustKubectl("", "get", "robots."+group, "marvin", "-o", "jsonpath={.metadata.uid}")

	a := lasting("marvin")
	a.replicas = 2
	yes := true
	for _, name := range []string{"marvin-a", "marvin-b"} {
		pod := s.bare(name, a.annotations)
		pod.Labels["app"] = a.name
		template := s.template(a)
		pod.Spec = template.Spec
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: group + "/v1", Kind: "Robot", Name: "marvin", UID: types.UID(uid), Controller: &yes}}
		_, err := s.client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	s.awaitGated(a)
	before := s.awaitRunning(a, startTimeout)
	slot := api.SingletonLease(api.Workload{Group: group, Kind: "Robot", Name: "marvin"}, "")
	assert.Equal(t, before.Pod, s.awaitHolder(slot).Name, "the slot is named after the owner")
	s.handsOver(a)
}
