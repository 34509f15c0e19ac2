// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// suspended creates a Job for three pods. The Job is suspended, so no pod exists yet. The result is
// an owner reference that names the Job.
func suspended(s *space.Space, name string) metav1.OwnerReference {
	s.Helper()
	a := app.App{Name: name}
	spec := app.Job(s, a).Spec
	spec.Suspend, spec.Parallelism, spec.Completions = new(true), new(int32(3)), new(int32(3))
	job, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	return *metav1.NewControllerRef(job, batchv1.SchemeGroupVersion.WithKind("Job"))
}

// A pod that arrives at the barrier of another Job would open that barrier too early.
//
// docs/compatibility.md: impossible/barrier-by-hand refused NotInjected
func TestPodWithAForgedBarrierIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	own, other := suspended(s, "own"), suspended(s, "other")
	pod := app.Bare(s, "train", map[string]string{api.BarrierAnnotation: "warm=3"})
	pod.Spec.RestartPolicy, pod.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	whole := webhook.Gated(s, pod)
	require.Equal(t, api.GatedAfter, whole.Labels[api.GatedLabel])
	bare := pod.DeepCopy()
	bare.OwnerReferences = nil
	_, err := webhook.Try(s, bare)
	require.ErrorContains(t, err, "BarrierNeedsJob: ")
	large := pod.DeepCopy()
	large.Annotations[api.BarrierAnnotation] = "warm=4"
	_, err = webhook.Try(s, large)
	require.ErrorContains(t, err, "BarrierNeverOpens: ")

	f := forge(s)
	_, err = webhook.Try(f.Space, whole.DeepCopy())
	require.NoError(t, err, "with all its parts")
	run := "-run=" + string(own.UID)
	for what, take := range map[string]func(*corev1.Pod){
		"no container":           without(api.BarrierContainer),
		"a container of a shell": func(pod *corev1.Pod) { initContainer(pod, api.BarrierContainer).Command = []string{"sh"} },
		"a container beside":     sidecar(api.BarrierContainer),
		"another size":           args(api.BarrierContainer, "barrier", "-barrier=warm=2", run, "-lease-duration=30s"),
		"another run":            args(api.BarrierContainer, "barrier", "-barrier=warm=3", "-run="+string(other.UID), "-lease-duration=30s"),
		"two runs":               args(api.BarrierContainer, "barrier", "-barrier=warm=3", run, "-lease-duration=30s", "-run="+string(other.UID)),
		"another owner":          func(pod *corev1.Pod) { pod.OwnerReferences = []metav1.OwnerReference{other} },
		"no owner":               func(pod *corev1.Pod) { pod.OwnerReferences = nil },
		"no label":               func(pod *corev1.Pod) { delete(pod.Labels, api.GatedLabel) },
		"slots":                  func(pod *corev1.Pod) { pod.Annotations[api.SlotsAnnotation] = strings.TrimPrefix(run, "-run=") },
		"no annotation":          func(pod *corev1.Pod) { delete(pod.Annotations, api.BarrierAnnotation) },
		"an opt-out":             func(pod *corev1.Pod) { pod.Annotations[api.InjectAnnotation] = "false" },
	} {
		t.Run(what, func(t *testing.T) {
			pod := whole.DeepCopy()
			take(pod)
			_, err := webhook.Try(f.Space, pod)
			assert.Regexp(t, "NotInjected: |MarksForged: |Leftover: |OptedOut: ", fmt.Sprint(err))
		})
	}
}

// An agent that arrives at the barrier of another Job would open that barrier too early.
func TestLocalAPIPodWithForgedBarrierIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	own, other := suspended(s, "own"), suspended(s, "other")
	pod := app.Bare(s, "train", map[string]string{api.LocalAnnotation: "barrier/warm=3, lock/a"})
	pod.Spec.RestartPolicy, pod.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	whole := webhook.Gated(s, pod)
	require.Equal(t, "barrier/warm=3,lock.a", whole.Annotations[api.SlotsAnnotation])
	bare := pod.DeepCopy()
	bare.OwnerReferences = nil
	_, err := webhook.Try(s, bare)
	require.ErrorContains(t, err, "BarrierNeedsJob: ")
	large := pod.DeepCopy()
	large.Annotations[api.LocalAnnotation] = "barrier/warm=4"
	_, err = webhook.Try(s, large)
	require.ErrorContains(t, err, "BarrierNeverOpens: ")

	f := forge(s)
	_, err = webhook.Try(f.Space, whole.DeepCopy())
	require.NoError(t, err, "with all its parts")
	const claims, lasts = "-claims=barrier/warm=3,lock/a", "-lease-duration=30s"
	run, theirs := "-run="+string(own.UID), "-run="+string(other.UID)
	for what, take := range map[string]func(*corev1.Pod){
		"another run":    args(api.AgentContainer, "api", claims, theirs, lasts),
		"two runs":       args(api.AgentContainer, "api", claims, run, lasts, theirs),
		"a run in front": args(api.AgentContainer, "api", theirs, claims, lasts),
		"another size":   args(api.AgentContainer, "api", "-claims=barrier/warm=2,lock/a", run, lasts),
		"another owner":  func(pod *corev1.Pod) { pod.OwnerReferences = []metav1.OwnerReference{other} },
		"no owner":       func(pod *corev1.Pod) { pod.OwnerReferences = nil },
		"no annotation": func(pod *corev1.Pod) {
			delete(pod.Annotations, api.LocalAnnotation)
			args(api.AgentContainer, "api", claims, theirs, lasts)(pod)
		},
	} {
		t.Run(what, func(t *testing.T) {
			pod := whole.DeepCopy()
			take(pod)
			_, err := webhook.Try(f.Space, pod)
			assert.Regexp(t, "NotInjected: |MarksForged: |Leftover: ", fmt.Sprint(err))
		})
	}
}
