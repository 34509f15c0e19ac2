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
func TestEphemeralContainerTargetsNoInjectedContainer(t *testing.T) {
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

// With the agent's volumes a person could replace the agent's binary or socket, answer the program in place
// of the agent, or read the agent's token.
func TestEphemeralContainerMountsNoVolumeOfTheAgent(t *testing.T) {
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
	for _, volume := range []string{api.Volume, api.CredentialsVolume, api.LocalVolume} {
		refused := mounting(corev1.VolumeMount{Name: volume, MountPath: "/x"})
		require.Len(t, refused, 1, volume)
		assert.Contains(t, refused[0], "InjectedVolumeMounted: the ephemeral container debug ")
	}
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

// The command of a gated container contains the image's command, so with a new image the container would
// run the old image's command. An injected container with another image would not hold the slot.
//
// docs/reference/compatibility.md: impossible/image-in-place refused ImageChangedInPlace
func TestImageOfGatedContainerNeverChangesInPlace(t *testing.T) {
	own, _ := jobs()
	train := bare("train", map[string]string{api.BarrierAnnotation: "warm=3"})
	train.Spec.RestartPolicy, train.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	pods := map[string]*corev1.Pod{
		"conditions": gated(t, bare("later", map[string]string{api.AfterAnnotation: "lock.never"})), "a barrier": gated(t, train),
		"the local API": gated(t, bare("asker", map[string]string{api.LocalAnnotation: "lock/a"})),
	}
	for gate := range missingOf {
		pods[string(gate)] = locked(t, gate)
	}
	injected := 0
	for what, pod := range pods {
		changed := func(container func(*corev1.Pod) *corev1.Container) []string {
			now := pod.DeepCopy()
			container(now).Image = "another:1"
			return refusals(t, request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: namespace(shop, true), object: now, old: pod})
		}
		refused := changed(func(pod *corev1.Pod) *corev1.Container { return &pod.Spec.Containers[0] })
		if what == string(api.GateContainer) {
			require.Len(t, refused, 1)
			assert.Contains(t, refused[0], "ImageChangedInPlace: container app is gated")
		} else {
			assert.Empty(t, refused, "%s: the container has no shim", what)
		}
		for i, c := range pod.Spec.InitContainers {
			injected++
			refused := changed(func(pod *corev1.Pod) *corev1.Container { return &pod.Spec.InitContainers[i] })
			require.Len(t, refused, 1, what)
			assert.Contains(t, refused[0], "metaparticle-image: ImageChangedInPlace: container "+c.Name+" was injected", what)
		}
	}
	assert.Equal(t, 8, injected)
}
