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

// last is how an application's container ended last, once it was restarted.
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

// unhealthy is what probes of a pod are said to have failed of, but for what they
// say of an application that does not listen yet, not all starts are fast; and of an
// agent that was stalled for the half second that a command asks it. That an agent
// does not listen is said in other words, and one that never answers is Ready never.
func unhealthy(s *space.Space, pod *corev1.Pod) []string {
	return slices.DeleteFunc(s.Said(pod, "Unhealthy"), func(message string) bool {
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

// compat: lifecycle/termination-messages lifecycle/out-of-memory carried
func TestAContainerEndsAsWithoutUs(t *testing.T) {
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
		// Each ends again and again: of one end a machine that stalls may lose the
		// log's last line, or that it was for memory. It is said how often.
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
