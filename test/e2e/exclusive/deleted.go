// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// atDesk creates a pod that claims the lock "desk". The pod has the gate "readiness" and
// a preStop hook of two minutes. atDesk returns when the application runs, and the pod's readiness
// condition in the API server has the given reason.
func atDesk(s *space.Space, name, reason string) *corev1.Pod {
	s.Helper()
	pod := app.Bare(s, name, map[string]string{
		api.LockAnnotation: "desk", api.GateAnnotation: string(api.GateReadiness),
		api.LeaseDurationAnnotation: lease.Lasting.String(),
	})
	// "agent yield" must find the agent even if the pod's containers share a process namespace.
	grace, shared := int64(150), true
	pod.Spec.TerminationGracePeriodSeconds, pod.Spec.ShareProcessNamespace = &grace, &shared
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
		PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 120}},
	}
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Await(space.StartTimeout, name+" is "+reason, func() bool {
		pod = s.Pod(name)
		return pod != nil && s.Running(name) != nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == api.ReadyCondition && c.Reason == reason
		})
	})
	return pod
}

// With this test's gate "readiness", the kubelet runs the slow preStop hook of a deleted
// standby before the kubelet sends any signal. Until that signal the agent learns of the
// deletion only because the agent checks its pod with each acquiring write. The write may be
// earlier than the check, so the agent may take a slot once. The agent then gives the slot
// back, and takes no slot again. With the gate "container" the shim runs the hook, so the
// kubelet signals the shim at once. Then an agent misses the deletion only if that signal is
// lost.
func TestDeletedStandbyReturnsASlotAcquiredByMistake(t *testing.T) {
	t.Parallel()
	s, slot := space.New(t), api.LockLease("desk")
	stays, leaves := atDesk(s, "stays", "Holding"), atDesk(s, "leaves", "StandingBy")
	untouched := app.AwaitRunningPod(s, leaves.Name, space.Soon)
	app.DeletePod(s, leaves)

	for range 3 {
		before := s.Lease(slot).Annotations[api.HoldAnnotation]
		kubectl.Must(s, "", "exec", stays.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
		s.Await(space.Soon, "the slot is back where it is of use", func() bool {
			now := s.Lease(slot) // one read of the Lease gives holder and hold
			holder := s.Named(now)
			return holder != nil && holder.UID == stays.UID && now.Annotations[api.HoldAnnotation] != before
		})
	}
	still := s.Pod(leaves.Name)
	require.NotNil(t, still, "its hook still sleeps")
	assert.NotNil(t, still.DeletionTimestamp)
	assert.Equal(t, untouched.ID, app.AwaitRunningPod(s, leaves.Name, space.Soon).ID, "its application is untouched")
	assert.LessOrEqual(t, len(s.EventMessages(leaves, "Acquired")), 1, "it may hear of its deletion only when it has the slot")
}
