// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// atDesk starts a pod that shares a lock, whose readiness alone that decides, and
// whose preStop hook sleeps for two minutes. It returns when the pod stands by or
// holds.
func (s *space) atDesk(name, reason string) *corev1.Pod {
	s.Helper()
	pod := s.bare(name, map[string]string{
		api.LockAnnotation: "desk", api.GateAnnotation: string(api.GateReadiness),
		api.LeaseDurationAnnotation: lastingLease.String(),
	})
	grace, shared := int64(150), true // so that the agent is not PID 1
	pod.Spec.TerminationGracePeriodSeconds, pod.Spec.ShareProcessNamespace = &grace, &shared
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
		PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 120}},
	}
	_, err := s.client.CoreV1().Pods(s.name).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
	s.await(startTimeout, name+" is "+reason, func() bool {
		pod = s.pod(name)
		return pod != nil && s.running(name) != nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == api.ReadyCondition && c.Reason == reason
		})
	})
	return pod
}

// A standby whose preStop hook takes its time is a standby still, for its agent. A
// slot that it takes it gives back, and it takes none again. With the other gates
// the hook is the shim's, and it takes a signal that was lost to get here.
func TestAPodThatIsBeingDeletedGivesTheSlotBack(t *testing.T) {
	t.Parallel()
	s, slot := newSpace(t), api.LockLease("desk")
	stays, leaves := s.atDesk("stays", "Holding"), s.atDesk("leaves", "StandingBy")
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
	assert.NotNil(t, s.running(leaves.Name), "its application is untouched")
	assert.LessOrEqual(t, len(s.said(leaves, "Acquired")), 1, "it may hear of its deletion only when it has the slot")
}

// An agent may hear that its pod is deleted in the same instant as the kubelet. Both
// then stop an application that is milliseconds old.
//
// compat: lifecycle/exit-codes carried
func TestPodDeletedAtAStartEndsAsItsApplication(t *testing.T) {
	needLab(t, "it kills processes of pods")
	t.Parallel()
	s := newSpace(t)
	const code = 9
	var all []*specimen
	for i := range 6 {
		name := fmt.Sprintf("brief-%d", i)
		claim := map[string]string{api.LockAnnotation: name, api.LeaseDurationAnnotation: lastingLease.String()}
		all = append(all, s.specimen(software{name: "app", serves: begun}, name, claim, func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Args = append(p.Spec.Containers[0].Args, fmt.Sprintf("-stop-code=%d", code))
		}))
	}
	for _, p := range all {
		p.start()
		pod := p.pod(p.name)
		first := mainOf(pod)
		p.signalMain(pod, unix.SIGKILL)
		p.await(startTimeout, p.name+" starts anew", func() bool {
			now := mainOf(pod)
			return now != nil && now.pid != first.pid
		})
		p.deletePod(pod)
		select {
		case status := <-p.final:
			end := containerNamed(status, "app")
			require.NotNil(t, end.State.Terminated, p.name)
			assert.EqualValues(t, code, end.State.Terminated.ExitCode, p.name)
			assert.EqualValues(t, 1, end.RestartCount, p.name)
		case <-time.After(startTimeout):
			require.FailNow(t, p.name+" is not deleted")
		}
	}
}
