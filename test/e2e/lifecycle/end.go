// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// last waits until an application's container has ended and restarted, and returns its
// latest end.
func last(s *space.Space, a app.App) (ended *corev1.ContainerStateTerminated) {
	s.Helper()
	s.Await(space.StartTimeout, a.Name+" has ended", func() bool {
		for _, pod := range s.Pods(a.Name) {
			if last := status.LastEnd(s, pod); last != nil {
				ended = last
			}
		}
		return ended != nil
	})
	return ended
}

// unhealthy returns the messages of a pod's failed probes. The result omits the failures of an
// application that does not listen yet. The result also omits exec probes that a stalled agent did
// not answer within half a second. (If an agent never answers, its pod is never Ready, and the test
// fails.)
func unhealthy(s *space.Space, pod *corev1.Pod) []string {
	return slices.DeleteFunc(s.EventMessages(pod, "Unhealthy"), func(message string) bool {
		return strings.Contains(message, ":8080: connect: connection refused") ||
			strings.Contains(message, "ask the agent: ") && strings.Contains(message, "deadline exceeded")
	})
}

// mayMiss bounds the unexpected ends of one container, which a busy machine may cause. More
// unexpected ends are a bug.
const mayMiss = 2

// endsWith waits until a restarting container has ended with a code. On a busy machine the kubelet
// may stop the container before the application handles signals. A remark reports each end with
// another code. More than mayMiss such ends fail the test.
func endsWith(s *space.Space, pod *corev1.Pod, code int32, what string) {
	s.Helper()
	missed := map[string]bool{}
	s.Await(space.StartTimeout, fmt.Sprintf("%s: exit code %d", what, code), func() bool {
		last := status.LastEnd(s, pod)
		if last == nil || last.ExitCode == code {
			return last != nil
		}
		if !missed[last.ContainerID] {
			missed[last.ContainerID] = true
			s.Remark("%s: run %d ended with %d, not %d", what, len(missed), last.ExitCode, code)
		}
		return false
	})
	assert.LessOrEqual(s, len(missed), mayMiss, what)
}

// docs/reference/compatibility.md: lifecycle/termination-messages lifecycle/out-of-memory carried
func TestGateKeepsTheTerminationReasonAndMessage(t *testing.T) {
	t.Parallel()
	s := space.New(t)
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
			c.Resources.Limits = app.Quantities("1", "64Mi")
		}, 137, "OOMKilled", ""},
	} {
		plain, gated := pair(s, "ends-"+name, func(t *corev1.PodTemplateSpec) { tt.edit(&t.Spec.Containers[0]) })
		// Both containers end again and again. On a busy machine the last line of a log,
		// or the reason of an end, may be lost. A remark reports each such end.
		missed := map[string]bool{}
		s.Within(space.StartTimeout, func() bool {
			before, after := last(s, plain), last(s, gated)
			told := before.ExitCode == tt.code && before.Reason == tt.reason && strings.Contains(before.Message, tt.message) &&
				after.ExitCode == before.ExitCode && after.Reason == before.Reason && after.Message == before.Message
			if ends := before.ContainerID + after.ContainerID; !told && !missed[ends] {
				missed[ends] = true
				s.Remark("%s: not as without us: %+v, %+v", name, before, after)
			}
			return told
		})
		assert.LessOrEqual(t, len(missed), mayMiss, name)
		for _, a := range []app.App{plain, gated} {
			ended := last(s, a)
			assert.Equal(t, tt.code, ended.ExitCode, a.Name)
			assert.Equal(t, tt.reason, ended.Reason, a.Name)
			assert.Contains(t, ended.Message, tt.message, a.Name)
		}
		assert.Equal(t, last(s, plain).Message, last(s, gated).Message, name)
	}
}
