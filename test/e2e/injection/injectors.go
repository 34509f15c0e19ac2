// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// Another injector adds a container to the pod, and an environment variable to all containers. The
// injector's name decides whether the API server calls it before our webhook or after ours.
//
// docs/reference/compatibility.md: pod/injector-before pod/injector-after carried
func TestPodIsGatedCompletelyDespiteAForeignInjector(t *testing.T) {
	cluster.NeedLab(t, "its webhook is an image of the tests")
	t.Parallel()
	for order, first := range map[string]string{"before": "aa-", "after": "zz-"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s, served := space.New(t), space.New(t)
			register(served, first+s.Namespace, "/inject", s.Namespace, laterWebhook(served))
			s.Await(space.StartTimeout, "the injector is called", func() bool {
				pod, err := webhook.Try(s, app.Bare(s, "any", nil))
				return err == nil && len(pod.Spec.Containers) == 2
			})
			a := app.Lasting("meshed")
			a.Replicas = 2
			app.Deploy(s, a)
			for _, pod := range s.Pods(a.Name) {
				for _, c := range pod.Spec.Containers {
					has := slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == "INJECTED" })
					assert.True(t, has, "%s has the variable", c.Name)
					gated := len(c.Command) > 0 && c.Command[0] == api.ShimProgram
					assert.Equal(t, c.Name == "app", gated, "%s is gated", c.Name)
				}
				assert.Len(t, pod.Spec.Containers, 2, "one container was added, once")
				assert.True(t, status.ContainersRun(pod), "the injected one runs in a standby too")
			}
			app.AwaitRunning(s, a, space.Soon)
		})
	}
}
