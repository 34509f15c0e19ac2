// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
)

// last is how an application's container ended last, once it was restarted.
func (s *space) last(a app) (ended *corev1.ContainerStateTerminated) {
	s.Helper()
	s.await(startTimeout, a.name+" has ended", func() bool {
		for _, pod := range s.all(a.name) {
			for _, status := range pod.Status.ContainerStatuses {
				if status.LastTerminationState.Terminated != nil {
					ended = status.LastTerminationState.Terminated
				}
			}
		}
		return ended != nil
	})
	return ended
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
		for _, a := range []app{plain, gated} {
			ended := s.last(a)
			assert.Equal(t, tt.code, ended.ExitCode, a.name)
			assert.Equal(t, tt.reason, ended.Reason, a.name)
			assert.Contains(t, ended.Message, tt.message, a.name)
		}
		assert.Equal(t, s.last(plain).Message, s.last(gated).Message, name)
	}
}
