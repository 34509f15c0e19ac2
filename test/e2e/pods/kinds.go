// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

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
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// docs/reference/compatibility.md: kinds/replica-set carried
func TestPodsOfAReplicaSetRunOneByOne(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s, a := space.New(t), app.Lasting("set")
	a.Replicas = 2
	_, err := s.Client.AppsV1().ReplicaSets(s.Namespace).Create(t.Context(), &appsv1.ReplicaSet{ObjectMeta: app.Meta(s, a),
		Spec: appsv1.ReplicaSetSpec{Replicas: a.Count(), Selector: a.Selector(), Template: app.Template(s, a)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	app.AwaitGated(s, a)
	app.AwaitRunning(s, a, space.StartTimeout)
	app.HandsOver(s, a)
}

// short creates a Job that runs an application, and returns the application. The function "edit"
// changes the Job's spec.
func short(s *space.Space, name string, edit func(*batchv1.JobSpec), args ...string) app.App {
	s.Helper()
	a := app.Lasting(name)
	a.Args = args
	job := &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: app.Job(s, a).Spec}
	edit(&job.Spec)
	_, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), job, metav1.CreateOptions{})
	require.NoError(s, err)
	return a
}

// jobNow returns a Job from the API server.
func jobNow(s *space.Space, name string) *batchv1.Job {
	job, err := s.Client.BatchV1().Jobs(s.Namespace).Get(s.Context(), name, metav1.GetOptions{})
	require.NoError(s, err)
	return job
}

// A yielded slot ends the pod, and the Job's policy must not take that end for a failure.
//
// docs/reference/compatibility.md: kinds/job-failure-policy carried
func TestYieldOfAJobsPodIsNoFailureOfTheJob(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := short(s, "import", func(j *batchv1.JobSpec) {
		j.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			}},
			{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				Operator: batchv1.PodFailurePolicyOnExitCodesOpNotIn, Values: []int32{42},
			}},
		}}
	})
	first := app.AwaitRunning(s, a, space.StartTimeout)
	kubectl.Must(s, "", "exec", first.Pod, "-c", api.AgentContainer, "--", "/agent", "yield")
	s.Await(space.StartTimeout, "another pod runs", func() bool { return app.After(s, a, first) != nil })
	job := jobNow(s, "import")
	assert.Zero(t, job.Status.Failed, "the failure is ignored")
	for _, c := range job.Status.Conditions {
		assert.NotEqual(t, batchv1.JobFailed, c.Type, c.Message)
	}
}

// Of the clients that make a Job from a CronJob, kubectl claims to be the Job's controller, and others
// only name the CronJob as an owner.
//
// docs/reference/compatibility.md: kinds/cron-job-by-hand carried
func TestRunByHandWaitsForTheCronJobsSlot(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("nightly")
	cron := app.CronJob(s, a)
	cron.Spec.Suspend = new(true)
	cron, err := s.Client.BatchV1().CronJobs(s.Namespace).Create(t.Context(), cron, metav1.CreateOptions{})
	require.NoError(t, err)
	kubectl.Must(s, "", "create", "job", "--from=cronjob/nightly", "by-kubectl")
	first := app.AwaitRunning(s, a, space.StartTimeout)
	_, err = s.Client.BatchV1().Jobs(s.Namespace).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "by-hand", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "batch/v1", Kind: "CronJob", Name: cron.Name, UID: cron.UID, BlockOwnerDeletion: new(true)},
		}},
		Spec: cron.Spec.JobTemplate.Spec,
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	var second *corev1.Pod
	s.Await(space.StartTimeout, "the second run stands by", func() bool {
		for _, pod := range s.Pods(a.Name) {
			if pod.Name != first.Pod && status.ContainersRun(pod) {
				second = pod
			}
		}
		return second != nil
	})
	assert.Equal(t, "singleton.cronjob.nightly", second.Annotations[api.SlotsAnnotation])
	assert.Equal(t, first.ID, app.AwaitRunning(s, a, space.Soon).ID, "the first run goes on")
	kubectl.Must(s, "", "delete", "job", "by-kubectl", "--wait=false")
	s.Await(space.StartTimeout, "the second run follows", func() bool { return app.After(s, a, first) != nil })
}

// docs/reference/compatibility.md: kinds/job kinds/job-parallel kinds/job-indexed kinds/job-failure-policy kinds/job-suspend lifecycle/restart-on-failure carried
func TestPodsOfJobsCompleteOneAtATime(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	three, two, yes, indexed := int32(3), int32(2), true, batchv1.IndexedCompletion
	parallel := short(s, "parallel", func(j *batchv1.JobSpec) { j.Completions, j.Parallelism = &three, &three }, "-run-for=300ms")
	index := short(s, "indexed", func(j *batchv1.JobSpec) {
		j.Completions, j.Parallelism, j.CompletionMode = &three, &two, &indexed
	}, "-run-for=300ms")
	short(s, "fails", func(j *batchv1.JobSpec) {
		j.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		j.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
			Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42}},
		}}}
	}, "-run-for=100ms", "-exit-code=42")
	suspended := short(s, "suspended", func(j *batchv1.JobSpec) { j.Suspend = &yes }, "-stop-delay=100ms")

	for _, a := range []app.App{parallel, index} {
		s.Await(space.StartTimeout, a.Name+" is complete", func() bool { return status.Complete(jobNow(s, a.Name)) })
		assert.Len(t, s.Record(a.Name), 3)
	}
	assert.Equal(t, "0-2", jobNow(s, "indexed").Status.CompletedIndexes)

	s.Await(space.StartTimeout, "the failure policy has ended the Job", func() bool {
		for _, c := range jobNow(s, "fails").Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
				return assert.Equal(t, batchv1.JobReasonPodFailurePolicy, c.Reason)
			}
		}
		return false
	})
	assert.Len(t, s.Record("fails"), 1, "tried once")

	suspend := func(is bool) {
		patch := fmt.Appendf(nil, `{"spec":{"suspend":%v}}`, is)
		_, err := s.Client.BatchV1().Jobs(s.Namespace).Patch(t.Context(), suspended.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		require.NoError(t, err)
	}
	assert.Empty(t, s.Pods(suspended.Name))
	suspend(false)
	first := app.AwaitRunning(s, suspended, space.StartTimeout)
	suspend(true)
	s.Await(space.StartTimeout, "its pod is gone", func() bool { return len(s.Pods(suspended.Name)) == 0 })
	suspend(false)
	s.Await(space.StartTimeout, "it runs again", func() bool { return app.After(s, suspended, first) != nil })
}

// The owner of the pods is a custom resource, which no code of Metaparticle mentions. The test
// itself creates the owner's pods, as a custom controller would: one directly, and one by a
// ReplicationController, as OpenShift makes one for each version of a DeploymentConfig.
//
// docs/reference/compatibility.md: kinds/custom carried
func TestPodsOfACustomControllerShareOneSlot(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	group := s.Namespace + ".example.com"
	definition := fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"robots.%[1]s"},
		"spec":{"group":"%[1]s","scope":"Namespaced","names":{"plural":"robots","singular":"robot","kind":"Robot"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, group)
	kubectl.Must(s, definition, "apply", "-f", "-")
	t.Cleanup(func() {
		path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/robots." + group
		assert.NoError(t, cluster.Client.CoreV1().RESTClient().Delete().AbsPath(path).Do(context.Background()).Error())
	})
	kubectl.Must(s, "", "wait", "--for=condition=Established", "customresourcedefinition/robots."+group, kubectl.RolloutTimeout)
	robot := fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Robot","metadata":{"name":"marvin"}}`, group)
	// kubectl may know the new custom resource only a moment later.
	s.Await(space.Soon, "a robot", func() bool { _, err := kubectl.Run(s, robot, "apply", "-f", "-"); return err == nil })
	uid := kubectl.Must(s, "", "get", "robots."+group, "marvin", "-o", "jsonpath={.metadata.uid}")

	a := app.Lasting("marvin")
	a.Replicas = 2
	owners := []metav1.OwnerReference{{APIVersion: group + "/v1", Kind: "Robot", Name: "marvin", UID: types.UID(uid), Controller: new(true)}}
	pod := app.Bare(s, "marvin-a", a.Annotations)
	pod.Labels["app"], pod.Spec, pod.OwnerReferences = a.Name, app.Template(s, a).Spec, owners
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	version := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "marvin-2", OwnerReferences: owners}}
	version.Spec.Replicas, version.Spec.Template = new(int32(1)), new(app.Template(s, a))
	version.Spec.Template.Labels["version"], version.Spec.Template.Annotations = "2", a.Annotations
	version.Spec.Selector = version.Spec.Template.Labels
	_, err = s.Client.CoreV1().ReplicationControllers(s.Namespace).Create(t.Context(), version, metav1.CreateOptions{})
	require.NoError(t, err)
	app.AwaitGated(s, a)
	before := app.AwaitRunning(s, a, space.StartTimeout)
	slot := api.SingletonLease(api.Workload{Group: group, Kind: "Robot", Name: "marvin"}, "")
	assert.Equal(t, before.Pod, s.AwaitHolder(slot).Name, "the slot is named after the owner")
	app.HandsOver(s, a)
}
