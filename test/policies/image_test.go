// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// An ephemeral container in the process namespace of an agent could read the agent's token.
func TestImagePolicyKeepsEphemeralContainersOffInjectedContainers(t *testing.T) {
	gated := gatedPod("web")
	for _, name := range api.Injected {
		gated.Spec.InitContainers = append(gated.Spec.InitContainers, corev1.Container{Name: name, Image: "agent"})
	}
	debugged := func(pod *corev1.Pod, containers ...corev1.EphemeralContainer) []string {
		changed := pod.DeepCopy()
		changed.Spec.EphemeralContainers = append(changed.Spec.EphemeralContainers, containers...)
		return refusals(t, request{
			by: &user.DefaultInfo{Name: "debugger"}, resource: podResource, subresource: "ephemeralcontainers",
			in: namespace(shop, true), object: changed, old: pod,
		})
	}
	targeting := func(target string) corev1.EphemeralContainer {
		return corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}, TargetContainerName: target,
		}
	}
	for _, name := range api.Injected {
		refused := debugged(gated, targeting("app"), targeting(name))
		require.Len(t, refused, 1, name)
		assert.Contains(t, refused[0], "InjectedContainerTargeted: the ephemeral container debug targets "+name+", ")
	}
	assert.Empty(t, debugged(gated, targeting("")))
	assert.Empty(t, debugged(gated, targeting("app")), "a person may debug the application")
	assert.Empty(t, debugged(gated, targeting("metaparticle-client")), "an application's own container may have such a name")
	// A pod from before this policy keeps its ephemeral container.
	before := gated.DeepCopy()
	before.Spec.EphemeralContainers = []corev1.EphemeralContainer{targeting(api.AgentContainer)}
	later := targeting("app")
	later.Name = "later"
	assert.Empty(t, debugged(before, later))
}

// An ephemeral container that may write the volume of the local API could replace the agent's socket.
// Then the container could answer the program in place of the agent.
func TestEphemeralContainerNeverReplacesTheLocalSocket(t *testing.T) {
	pod := gatedPod("web")
	pod.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, Image: "agent"}}
	mounting := func(m corev1.VolumeMount) []string {
		changed := pod.DeepCopy()
		changed.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: "busybox", VolumeMounts: []corev1.VolumeMount{m},
		}}}
		return refusals(t, request{
			by: &user.DefaultInfo{Name: "debugger"}, resource: podResource, subresource: "ephemeralcontainers",
			in: namespace(shop, true), object: changed, old: pod,
		})
	}
	refused := mounting(corev1.VolumeMount{Name: api.LocalVolume, MountPath: "/x"})
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "InjectedVolumeMounted: the ephemeral container debug ")
	assert.Empty(t, mounting(corev1.VolumeMount{Name: api.LocalVolume, MountPath: "/x", ReadOnly: true}), "a person may call the local API")
	assert.Empty(t, mounting(corev1.VolumeMount{Name: "data", MountPath: "/x"}))
}

// podResource is the resource of pods.
var podResource = corev1.SchemeGroupVersion.WithResource("pods")

// gatedPod returns a pod with a shim in its container "app".
func gatedPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: name, UID: "1",
			Labels:      map[string]string{api.GatedLabel: api.Gated},
			Annotations: map[string]string{api.LockAnnotation: "a", api.SlotsAnnotation: "lock.a"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app", Command: []string{api.ShimProgram, "exec"}}}},
	}
}
