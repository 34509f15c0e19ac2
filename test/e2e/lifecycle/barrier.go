// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// together is the number of pods that start together.
const together = 3

// gathered returns an application whose pods start together. Each pod has a separate record. A
// scheduling gate keeps each pod from all nodes until the test removes that gate.
func gathered() app.App {
	// The application exits with code 1 after SIGTERM, so a deleted pod fails. Then the Job's
	// controller makes another pod, even if the controller never sees the deletion.
	a := app.App{
		Name: "train", Record: "$POD_NAME", Args: []string{"-stop-code=1"}, Annotations: app.Claim(api.BarrierAnnotation, "warm=3"),
	}
	a.Edit = func(t *corev1.PodTemplateSpec) {
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		t.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/late"}}
	}
	return a
}

// startJob creates the Job of the application, and waits until all pods exist. startJob returns the
// Job and the Leases of its barrier.
func startJob(s *space.Space, a app.App) (*batchv1.Job, []string) {
	s.Helper()
	spec := app.Job(s, a).Spec
	spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	spec.Parallelism, spec.Completions = new(int32(together)), new(int32(together))
	job, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: spec}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Await(space.StartTimeout, "all pods exist", func() bool { return len(podsOf(s, job)) == together })
	return job, api.Barrier{Name: "warm", Size: together}.Leases(string(job.UID))
}

// podsOf returns the pods of a Job that are not being deleted.
func podsOf(s *space.Space, job *batchv1.Job) []*corev1.Pod {
	return slices.DeleteFunc(s.Pods(job.Name), func(pod *corev1.Pod) bool {
		return !metav1.IsControlledBy(pod, job) || pod.DeletionTimestamp != nil
	})
}

// release removes the scheduling gates of the pods.
func release(s *space.Space, pods ...*corev1.Pod) {
	s.Helper()
	for _, pod := range pods {
		_, err := s.Client.CoreV1().Pods(s.Namespace).Patch(s.Context(), pod.Name, types.MergePatchType,
			[]byte(`{"spec":{"schedulingGates":[]}}`), metav1.PatchOptions{})
		require.NoError(s, err)
	}
}

// awaitTwoArrivals waits until exactly two pods have arrived at the barrier.
func awaitTwoArrivals(s *space.Space, leases []string) {
	s.Helper()
	s.Await(space.StartTimeout, "the pods arrive", func() bool {
		return len(slices.DeleteFunc(slices.Clone(leases), func(name string) bool { return !strings.Contains(s.Identity(name), "_") })) == 2
	})
}

// awaitOpened waits until the test's watch shows that the barrier is open. Each pod may go on before
// the test's watch shows that.
func awaitOpened(s *space.Space, leases []string) {
	s.Helper()
	s.Await(space.Soon, "the record is stored", func() bool { return s.Lease(leases[0]).Annotations[api.OpenedAnnotation] == "3" })
}

// awaitStarts waits until the application runs in each of the pods. The argument "from" has the
// starts that the record showed while the last pod still had its scheduling gate. If there are such
// starts, awaitStarts fails the test.
func awaitStarts(s *space.Space, pods []*corev1.Pod, from record.Record) {
	s.Helper()
	for _, pod := range pods {
		s.Await(space.StartTimeout, "the application runs", func() bool { return s.Running(pod.Name) != nil })
	}
	assert.Empty(s, from, "no application started before the last pod came")
}

// startsOf returns all starts of the application in the pods.
func startsOf(s *space.Space, pods []*corev1.Pod) (all record.Record) {
	for _, pod := range pods {
		all = append(all, s.Record(pod.Name)...)
	}
	return all
}

// docs/reference/compatibility.md: pod/barrier carried
func TestPodsOfAJobStartTogether(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s, a := space.New(t), gathered()
	job, leases := startJob(s, a)
	pods := podsOf(s, job)
	release(s, pods[0], pods[1])
	awaitTwoArrivals(s, leases)
	s.Await(space.StartTimeout, "an Event says so", func() bool {
		return s.Event("Pod", pods[0].Name, "WaitsForCondition") != nil
	})
	early := startsOf(s, pods)
	release(s, pods[2])
	awaitStarts(s, pods, early)
	awaitOpened(s, leases)
	out, err := kubectl.Run(s, "", "delete", "lease", leases[0])
	require.Error(t, err)
	assert.Contains(t, out, "BarrierOpen: "+leases[0])

	// The pod that replaces the deleted one finds the barrier open.
	app.DeletePod(s, pods[0])
	later := replacement(s, job)
	release(s, later)
	s.Await(space.StartTimeout, "the application runs", func() bool { return s.Running(later.Name) != nil })
	assert.Empty(t, s.Identity(leases[0]))

	// A new Job with the same name is a new run.
	kubectl.Must(s, "", "delete", "job", a.Name, "--cascade=foreground", "--timeout=120s")
	s.Await(space.StartTimeout, "the record ends with the Job", func() bool { return s.Lease(leases[0]).UID == "" })
	job, leases = startJob(s, a)
	pods = podsOf(s, job)
	release(s, pods[0], pods[1])
	awaitTwoArrivals(s, leases)
	s.Await(space.StartTimeout, "an Event says so", func() bool {
		return s.Event("Pod", pods[1].Name, "WaitsForCondition") != nil
	})
	early = startsOf(s, pods)
	release(s, pods[2])
	awaitStarts(s, pods, early)
}

// replacement waits for the Job's new pod, which still has its scheduling gate.
func replacement(s *space.Space, job *batchv1.Job) (later *corev1.Pod) {
	s.Helper()
	s.Await(space.StartTimeout, "another pod replaces the deleted one", func() bool {
		for _, pod := range podsOf(s, job) {
			if len(pod.Spec.SchedulingGates) > 0 {
				later = pod
			}
		}
		return later != nil
	})
	return later
}
