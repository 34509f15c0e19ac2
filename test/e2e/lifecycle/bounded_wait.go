// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// duration is the lease duration of the Jobs. The duration is long, so that a holder keeps its slot
// on a busy machine. A pod that lost the slot would fail, because its containers never restart.
const duration = 30 * time.Second

// job creates a Job that claims a lock. The Job also has an annotation, with the key and the value
// in the arguments "key" and "value". The Job's pod never restarts.
func job(s *space.Space, name, lock, key, value string, args ...string) app.App {
	s.Helper()
	a := app.Locked(name, lock)
	a.Args = args
	a.Annotations[key], a.Annotations[api.LeaseDurationAnnotation] = value, duration.String()
	none := int32(0)
	spec := app.Job(s, a).Spec
	spec.BackoffLimit, spec.Template.Spec.RestartPolicy = &none, corev1.RestartPolicyNever
	_, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	return a
}

// ended waits until the Job's condition of the type "how" is true. Then ended returns the Job's
// only pod, once the test's watch shows the end of the pod.
func ended(s *space.Space, name string, how batchv1.JobConditionType) *corev1.Pod {
	s.Helper()
	s.Await(space.StartTimeout, fmt.Sprintf("Job %s is %s", name, how), func() bool {
		j, err := s.Client.BatchV1().Jobs(s.Namespace).Get(s.Context(), name, metav1.GetOptions{})
		require.NoError(s, err)
		for _, c := range j.Status.Conditions {
			if c.Type == how && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	})
	s.Await(space.Soon, "the test's watch shows the end of the pod", func() bool {
		return !slices.ContainsFunc(s.Pods(name), func(pod *corev1.Pod) bool { return status.Container(pod.Status, "app").State.Terminated == nil })
	})
	pods := s.Pods(name)
	require.Len(s, pods, 1)
	return pods[0]
}

// exitCode returns the exit code of the pod's application container.
func exitCode(s *space.Space, pod *corev1.Pod) int32 {
	s.Helper()
	end := status.Container(pod.Status, "app").State.Terminated
	require.NotNil(s, end)
	return end.ExitCode
}

// runs returns the names of an application's pods in which the application has run under the
// lock.
func runs(s *space.Space, lock, name string) []string {
	var found []string
	for _, p := range s.Record(lock) {
		if pod := s.Pod(p.Pod); pod != nil && pod.Labels["app"] == name {
			found = append(found, p.Pod)
		}
	}
	return found
}

// docs/reference/compatibility.md: lifecycle/bounded-wait carried
func TestJobSkipsWorkOnlyIfHolderIsAlive(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	const lock = "nightly"
	skips := func(name string, args ...string) app.App {
		return job(s, name, lock, api.OnBusyAnnotation, string(api.OnBusySkip), args...)
	}
	first := skips("first")
	app.AwaitRunning(s, first, space.StartTimeout)

	skips("second")
	pod := ended(s, "second", batchv1.JobComplete)
	assert.Zero(t, exitCode(s, pod))
	assert.Empty(t, runs(s, lock, "second"), "a skipped run never starts the application")
	s.Await(space.Soon, "an Event says so", func() bool { return s.Event("Pod", pod.Name, "Skipped") != nil })

	kubectl.Must(s, "", "delete", "job", "first")
	s.Await(space.StartTimeout, "the lock is free", func() bool { return s.Identity(api.LockLease(lock)) == "" })
	// A holder that is gone renews nothing, so the pod of the next Job takes the slot instead of
	// skipping.
	kubectl.Must(s, "", "patch", "lease", api.LockLease(lock), "--type=merge", "-p",
		fmt.Sprintf(`{"spec":{"holderIdentity":"gone","leaseDurationSeconds":%d}}`, int(duration/time.Second)))
	skips("third", "-run-for=300ms")
	assert.Zero(t, exitCode(s, ended(s, "third", batchv1.JobComplete)))
	assert.Len(t, runs(s, lock, "third"), 1)
}

func TestJobFailsWhenTheMaximumWaitIsOver(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	const lock = "report"
	first := job(s, "first", lock, api.WaitAtMostAnnotation, "10m")
	holds := app.AwaitRunning(s, first, space.StartTimeout)

	job(s, "second", lock, api.WaitAtMostAnnotation, "5s")
	pod := ended(s, "second", batchv1.JobFailed)
	assert.EqualValues(t, api.ExitWaited, exitCode(s, pod))
	assert.Empty(t, runs(s, lock, "second"))
	s.Await(space.Soon, "an Event says so", func() bool { return s.Event("Pod", pod.Name, "WaitedTooLong") != nil })
	assert.Equal(t, holds.ID, app.AwaitRunning(s, first, space.Soon).ID, "the bound is no bound of a run")
}
