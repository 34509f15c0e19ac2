// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// migration returns a pod with a once claim without a name.
func migration() mutate.Subject {
	origin := feature.Origin{Workload: api.Workload{Group: "apps", Kind: "Deployment", Name: "shop"}, UID: "u1"}
	return mutate.Subject{Namespace: "shop", Origin: origin, Pod: &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Annotations: map[string]string{
			api.OnceAnnotation: "true", api.ContainersAnnotation: "migrate",
		}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "migrate", Image: "app:1", Args: []string{"up"}, Env: []corev1.EnvVar{{Name: "DB", Value: "shop"}}}},
			Containers:     []corev1.Container{{Name: "app", Image: "app:1"}},
		},
	}}
}

// keyOf gates the pod, and returns the gated pod and the key of its once claim.
func keyOf(t *testing.T, s mutate.Subject, agentImage string) (*corev1.Pod, string) {
	t.Helper()
	images := mutatetest.Facts{Images: map[string]mutatetest.Image{
		"app:1": {Command: image.Command{Entrypoint: []string{"app", "$x"}}},
		"app:2": {Command: image.Command{Platforms: map[string]image.Command{
			"amd64": {Entrypoint: []string{"a"}}, "arm64": {Entrypoint: []string{"b"}},
		}}},
	}}
	raw, err := json.Marshal(s.Pod)
	require.NoError(t, err)
	s.Raw = raw
	ops, _, err := mutate.Inject(t.Context(), s, agentImage, images)
	require.NoError(t, err)
	gated := new(corev1.Pod)
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, ops), gated))
	for _, c := range gated.Spec.InitContainers {
		if c.Name == api.AgentContainer {
			return gated, api.RecallRunArgs(c.Args).OnceKey
		}
	}
	require.Fail(t, "the pod has no agent")
	return nil, ""
}

func TestVersionOfTheContainerIsItsOnceKey(t *testing.T) {
	_, key := keyOf(t, migration(), mutatetest.AgentImage)
	assert.Equal(t, "18e5322cc0191f4b", key, "the keys of an installed version outlive an upgrade")
	keys := map[string]string{key: "the version itself"}
	for name, change := range map[string]func(s *mutate.Subject, c *corev1.Container){
		"workload of the same name": func(s *mutate.Subject, _ *corev1.Container) { s.UID = "u2" },
		"image":                     func(_ *mutate.Subject, c *corev1.Container) { c.Image = "app:2" },
		"command":                   func(_ *mutate.Subject, c *corev1.Container) { c.Command = []string{"other"} },
		"arguments":                 func(_ *mutate.Subject, c *corev1.Container) { c.Args = []string{"down"} },
		"working directory":         func(_ *mutate.Subject, c *corev1.Container) { c.WorkingDir = "/srv" },
		"environment":               func(_ *mutate.Subject, c *corev1.Container) { c.Env[0].Value = "other" },
		"environment from a secret": func(_ *mutate.Subject, c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{Prefix: "X", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}}}
		},
	} {
		s := migration()
		change(&s, &s.Pod.Spec.InitContainers[0])
		_, other := keyOf(t, s, mutatetest.AgentImage)
		assert.Empty(t, keys[other], name)
		keys[other] = name
	}
	for name, change := range map[string]func(s *mutate.Subject, c *corev1.Container){
		"pod": func(s *mutate.Subject, _ *corev1.Container) { s.Pod.Name, s.Pod.Spec.NodeName = "shop-2", "n" },
		"wait": func(s *mutate.Subject, _ *corev1.Container) {
			s.Pod.Annotations[api.LeaseDurationAnnotation] = "1m"
		},
		"another container": func(s *mutate.Subject, _ *corev1.Container) { s.Pod.Spec.Containers[0].Image = "app:2" },
		"resources": func(_ *mutate.Subject, c *corev1.Container) {
			c.ImagePullPolicy, c.TerminationMessagePath = corev1.PullAlways, "/x"
		},
	} {
		s := migration()
		change(&s, &s.Pod.Spec.InitContainers[0])
		_, same := keyOf(t, s, "registry.example/agent:v2")
		assert.Equal(t, key, same, name)
	}
}

func TestOnceKeyStaysInALaterPass(t *testing.T) {
	for _, image := range []string{"app:1", "app:2"} {
		s := migration()
		s.Pod.Spec.InitContainers[0].Image = image
		first, key := keyOf(t, s, mutatetest.AgentImage)
		s.Pod = first
		_, again := keyOf(t, s, "registry.example/agent:v2")
		assert.Equal(t, key, again, image)
	}
}
