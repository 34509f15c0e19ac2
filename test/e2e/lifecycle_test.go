// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// last is how an application's container ended last, once it was restarted.
func (s *space) last(a app) (ended *corev1.ContainerStateTerminated) {
	s.Helper()
	s.await(startTimeout, a.name+" has ended", func() bool {
		for _, pod := range s.all(a.name) {
			if last := s.lastEnd(pod); last != nil {
				ended = last
			}
		}
		return ended != nil
	})
	return ended
}

// said are the messages of a pod's Events of that reason, without its address.
func (s *space) said(pod *corev1.Pod, reason string) []string {
	events, err := s.events.List(everything)
	require.NoError(s, err)
	var all []string
	for _, e := range events {
		if e.InvolvedObject.UID == pod.UID && e.Reason == reason {
			all = append(all, strings.ReplaceAll(e.Message, pod.Status.PodIP, "IP"))
		}
	}
	slices.Sort(all)
	return all
}

// restarted is how often the application's container of a pod was. The kubelet may
// count a restart before it says how the run before it ended; here it counts then.
func (s *space) restarted(pod *corev1.Pod) int32 {
	now := s.pod(pod.Name)
	if now == nil || len(now.Status.ContainerStatuses) == 0 {
		return -1
	}
	status := now.Status.ContainerStatuses[0]
	if status.RestartCount > 0 && status.LastTerminationState.Terminated == nil {
		return status.RestartCount - 1
	}
	return status.RestartCount
}

// unhealthy is what probes of a pod are said to have failed of, but for what they
// say of an application that does not listen yet, not all starts are fast; and of an
// agent that was stalled for the half second that a command asks it. That an agent
// does not listen is said in other words, and one that never answers is Ready never.
func (s *space) unhealthy(pod *corev1.Pod) []string {
	return slices.DeleteFunc(s.said(pod, "Unhealthy"), func(message string) bool {
		return strings.Contains(message, ":8080: connect: connection refused") ||
			strings.Contains(message, "ask the agent: ") && strings.Contains(message, "deadline exceeded")
	})
}

// mayMiss is how many ends a machine that stalls may spoil, one after the other;
// what is spoilt more often is not the machine's doing.
const mayMiss = 2

// endsWith waits until a container that is restarted again and again has ended a
// run with a code. One may be stopped before it has learnt to be, on a machine that
// stalls the next one, too; it is said how often.
func (s *space) endsWith(pod *corev1.Pod, code int32, what string) {
	s.Helper()
	missed := map[string]bool{}
	s.await(startTimeout, fmt.Sprintf("%s: exit code %d", what, code), func() bool {
		last := s.lastEnd(pod)
		if last == nil || last.ExitCode == code {
			return last != nil
		}
		if !missed[last.ContainerID] {
			missed[last.ContainerID] = true
			s.remark("%s: run %d ended with %d, not %d", what, len(missed), last.ExitCode, code)
		}
		return false
	})
	assert.LessOrEqual(s, len(missed), mayMiss, what)
}

// lastEnd is how the application's container of a pod ended last, or nil: it may
// not have, or the kubelet has not said it yet.
func (s *space) lastEnd(pod *corev1.Pod) *corev1.ContainerStateTerminated {
	now := s.pod(pod.Name)
	if now == nil || len(now.Status.ContainerStatuses) == 0 {
		return nil
	}
	return now.Status.ContainerStatuses[0].LastTerminationState.Terminated
}

// compat: lifecycle/termination-messages lifecycle/out-of-memory carried
func TestAContainerEndsAsWithoutUs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for name, tt := range map[string]struct {
		edit    func(*corev1.Container)
		code    int32
		reason  string
		message string
	}{
		"message": {func(c *corev1.Container) {
			c.TerminationMessagePath = "/message/notes"
			c.Args, c.Env = []string{"-record=/message", "-note=farewell", "-note-code=3"}, nil
		}, 3, "Error", "farewell"},
		"log": {func(c *corev1.Container) {
			c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			c.Args = []string{"-listen=nowhere"}
		}, 71, "Error", "app: listen tcp: address nowhere: missing port in address\n"},
		"memory": {func(c *corev1.Container) {
			c.Args = append(c.Args, "-eat")
			c.Resources.Limits = quantities("1", "64Mi")
		}, 137, "OOMKilled", ""},
	} {
		plain, gated := s.pair("ends-"+name, func(t *corev1.PodTemplateSpec) { tt.edit(&t.Spec.Containers[0]) })
		// Each ends again and again: of one end a machine that stalls may lose the
		// log's last line, or that it was for memory. It is said how often.
		missed := map[string]bool{}
		s.within(startTimeout, func() bool {
			before, after := s.last(plain), s.last(gated)
			told := before.ExitCode == tt.code && before.Reason == tt.reason && strings.Contains(before.Message, tt.message) &&
				after.ExitCode == before.ExitCode && after.Reason == before.Reason && after.Message == before.Message
			if ends := before.ContainerID + after.ContainerID; !told && !missed[ends] {
				missed[ends] = true
				s.remark("%s: not as without us: %+v, %+v", name, before, after)
			}
			return told
		})
		assert.LessOrEqual(t, len(missed), mayMiss, name)
		for _, a := range []app{plain, gated} {
			ended := s.last(a)
			assert.Equal(t, tt.code, ended.ExitCode, a.name)
			assert.Equal(t, tt.reason, ended.Reason, a.name)
			assert.Contains(t, ended.Message, tt.message, a.name)
		}
		assert.Equal(t, s.last(plain).Message, s.last(gated).Message, name)
	}
}
