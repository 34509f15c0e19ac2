// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// Somebody else's injector adds a container, and a variable to all that are
// there, called before ours or after it, by the order of names.
//
// compat: pod/injector-before pod/injector-after carried
func TestAnotherInjectorsContainerRunsInEveryPodWhicheverComesFirst(t *testing.T) {
	needLab(t, "its webhook is an image of the tests")
	t.Parallel()
	for order, first := range map[string]string{"before": "aa-", "after": "zz-"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s, served := newSpace(t), newSpace(t)
			served.register(first+s.name, "/inject", s.name, served.laterWebhook())
			s.await(startTimeout, "the injector is called", func() bool {
				pod, err := s.try(s.bare("any", nil))
				return err == nil && len(pod.Spec.Containers) == 2
			})
			a := lasting("meshed")
			a.replicas = 2
			s.deploy(a)
			for _, pod := range s.all(a.name) {
				for _, c := range pod.Spec.Containers {
					has := slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "INJECTED" })
					assert.True(t, has, "%s has the variable", c.Name)
					gated := len(c.Command) > 0 && c.Command[0] == api.AgentBinary
					assert.Equal(t, c.Name == "app", gated, "%s is gated", c.Name)
				}
				assert.Len(t, pod.Spec.Containers, 2, "one container was added, once")
				assert.True(t, containersRun(pod), "the injected one runs in a standby too")
			}
			s.awaitRunning(a, soon)
		})
	}
}
