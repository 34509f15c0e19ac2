// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// A webhook that is called after ours gives each container the image of a mirror, and a request. Ours is called again
// for the pod, and leaves both.
func TestGateRunsWithImagesAndRequestsOfAMirror(t *testing.T) {
	l := cluster.NeedLab(t, "its webhook is an image of the tests")
	t.Parallel()
	s, served := space.New(t), space.New(t)
	register(served, "zz-"+s.Namespace, "/mirror", s.Namespace, laterWebhook(served))
	var pod *corev1.Pod
	s.Await(space.StartTimeout, "the mirror's webhook is called", func() (called bool) {
		var err error
		pod, err = webhook.Try(s, app.Bare(s, "any", webhook.Claims))
		return err == nil && strings.Contains(pod.Spec.Containers[0].Image, "/mirror/")
	})
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		_, image, found := strings.Cut(c.Image, "/mirror/")
		require.True(t, found, c.Image)
		require.NoError(t, crane.Copy(l.Registry()+"/"+image, l.Registry()+"/mirror/"+image, crane.Insecure))
	}
	a := app.Singleton("mirrored")
	a.Replicas = 2
	app.Deploy(s, a)
	app.AwaitRunning(s, a, space.StartTimeout)
	for _, pod := range s.Pods(a.Name) {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			assert.Contains(t, c.Image, "/mirror/", c.Name)
			assert.NotEmpty(t, c.Resources.Requests[corev1.ResourceCPU], c.Name)
		}
	}
}

// The pod is valid without the claim. A LimitRange gives each container that states nothing a default, which does not
// fit beside the pod's own container into what the whole pod may have (KEP-2837).
func TestAgentFitsIntoThePodsResourcesUnderALimitRange(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	_, err := s.Client.CoreV1().LimitRanges(s.Namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "most"},
		Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Max: app.Quantities("2", "2Gi")}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	a := app.Singleton("whole")
	a.Replicas = 1
	a.Edit = func(template *corev1.PodTemplateSpec) {
		all := corev1.ResourceRequirements{Requests: app.Quantities("100m", "64Mi"), Limits: app.Quantities("100m", "64Mi")}
		template.Spec.Resources = &all
		template.Spec.Containers[0].Resources = all
	}
	app.Deploy(s, a)
	app.AwaitRunning(s, a, space.StartTimeout)
}
