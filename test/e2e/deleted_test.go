// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// While its preStop hook takes its time, a pod that is being deleted stands by as
// before, and no Service asks it any more. A slot that it takes it gives back, and
// it takes none again. With the other gates the hook is the shim's, and it takes a
// signal that was lost to get here.
func TestAPodThatIsBeingDeletedGivesTheSlotBack(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	start := func(name string, hook *corev1.Lifecycle) *corev1.Pod {
		pod := s.bare(name, map[string]string{
			api.LockAnnotation: "desk", api.GateAnnotation: string(api.GateReadiness),
			api.LeaseDurationAnnotation: lastingLease.String(),
		})
		grace := int64(90)
		pod.Spec.Containers[0].Lifecycle, pod.Spec.TerminationGracePeriodSeconds = hook, &grace
		_, err := s.client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
		s.await(startTimeout, name+" runs", func() bool {
			pod = s.pod(name)
			return pod != nil && s.running(name) != nil && containerNamed(pod.Status, "app").State.Running != nil
		})
		return pod
	}
	stays := start("stays", nil)
	slot := api.LockLease("desk")
	require.Equal(t, stays.Name, s.awaitHolder(slot).Name)
	leaves := start("leaves", &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 60}}})
	s.await(soon, "the other one stands by", func() bool {
		return slices.ContainsFunc(s.pod(leaves.Name).Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == api.ReadyCondition && c.Reason == "StandingBy"
		})
	})
	s.deletePod(leaves)

	for range 3 {
		before := s.lease(slot).Annotations[api.HoldAnnotation]
		s.mustKubectl("", "exec", stays.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
		s.await(soon, "the slot is back where it is of use", func() bool {
			now := s.lease(slot) // once: who holds, and in which hold
			holder := s.named(now)
			return holder != nil && holder.UID == stays.UID && now.Annotations[api.HoldAnnotation] != before
		})
	}
	still := s.pod(leaves.Name)
	require.NotNil(t, still, "its hook still sleeps")
	assert.NotNil(t, still.DeletionTimestamp)
	assert.LessOrEqual(t, len(s.said(leaves, "Acquired")), 1, "it may hear of its deletion only when it has the slot")
}
