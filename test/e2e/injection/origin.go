// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// A pod's creator writes the pod's owner references, so an owner reference alone proves
// nothing.
func TestPodWithAFalseOwnerReferenceIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	set, err := s.Client.AppsV1().StatefulSets(s.Namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
				Spec:       app.Bare(s, "db", nil).Spec,
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	owned := func(kind, name string, uid types.UID) *corev1.Pod {
		pod := app.Bare(s, "x", webhook.Claims)
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: new(true)}}
		return pod
	}
	// The webhook answers immediately, although its cache may not have the workload yet.
	pod, err := webhook.Try(s, owned("StatefulSet", "db", set.UID))
	require.NoError(t, err)
	assert.Equal(t, "singleton.statefulset.db", pod.Annotations[api.SlotsAnnotation])

	webhook.Refused(s, owned("StatefulSet", "db", "another"), "WorkloadUnknown: ")
	webhook.Refused(s, owned("StatefulSet", "none", set.UID), "WorkloadUnknown: ")
	webhook.Refused(s, owned("statefulset", "db", set.UID), "WorkloadUnknown: ")
	webhook.Refused(s, owned("StatefulSet", "db,lock.nightly", set.UID), "BadOwner: ")
}

func TestStaticPodWithAClaimIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	mirror := app.Bare(s, "static-node", maps.Clone(webhook.Claims))
	mirror.Annotations[corev1.MirrorPodAnnotationKey] = "5d41402abc4b2a76b9719d911017c592"
	mirror.Spec.NodeName, mirror.Spec.ServiceAccountName = "node", ""
	mirror.Spec.AutomountServiceAccountToken = nil
	webhook.Refused(s, mirror, "StaticPod: ")
}

func TestGateLabelAndSlotsAnnotationSurviveMetadataReplacement(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), app.Bare(s, "alone", webhook.Claims), metav1.CreateOptions{})
	require.NoError(t, err)
	slots := pod.Annotations[api.SlotsAnnotation]
	require.NotEmpty(t, slots)
	replace := func(path string, value map[string]string) (*corev1.Pod, error) {
		patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": path, "value": value}})
		require.NoError(t, err)
		return s.Client.CoreV1().Pods(s.Namespace).Patch(t.Context(), pod.Name, types.JSONPatchType, patch, metav1.PatchOptions{})
	}
	now, err := replace("/metadata/labels", map[string]string{"app": "alone", "quarantine": "true"})
	require.NoError(t, err)
	assert.Equal(t, api.Gated, now.Labels[api.GatedLabel])
	assert.Equal(t, "true", now.Labels["quarantine"])
	now, err = replace("/metadata/annotations", map[string]string{"a": "b"})
	require.NoError(t, err)
	assert.Equal(t, slots, now.Annotations[api.SlotsAnnotation])

	_, err = replace("/metadata/labels", map[string]string{api.GatedLabel: "false"})
	assert.ErrorContains(t, err, "MarksChanged: ")
	_, err = replace("/metadata/annotations", map[string]string{api.SlotsAnnotation: "lock.theirs"})
	assert.ErrorContains(t, err, "MarksChanged: ")
}

// The gated container's command contains the image's command. A request can change the image of a
// running container, but not the command. With a new image the container would run the old image's
// command, so a policy refuses the change.
//
// docs/compatibility.md: impossible/image-in-place refused ImageChangedInPlace
func TestImageOfGatedContainerNeverChangesInPlace(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), app.Bare(s, "alone", webhook.Claims), metav1.CreateOptions{})
	require.NoError(t, err)
	changed := func(pod *corev1.Pod, op, path string, value any) error {
		patch, err := json.Marshal([]map[string]any{{"op": op, "path": "/spec/" + path, "value": value}})
		require.NoError(t, err)
		_, err = s.Client.CoreV1().Pods(s.Namespace).Patch(t.Context(), pod.Name, types.JSONPatchType, patch,
			metav1.PatchOptions{DryRun: webhook.DryRun})
		return err
	}
	change := func(op, path string, value any) error { return changed(pod, op, "containers/0/"+path, value) }
	assert.ErrorContains(t, change("replace", "image", "another:1"), "ImageChangedInPlace: ")
	assert.ErrorContains(t, change("add", "args/-", "another"), "pod updates may not change fields other than")
	claims := map[string]map[string]string{"conditions": {api.AfterAnnotation: "lock.never"}}
	for gate := range admitted() {
		claims[string(gate)] = map[string]string{api.LockAnnotation: "with-" + string(gate), api.GateAnnotation: string(gate)}
	}
	for gate, annotations := range claims {
		pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), app.Bare(s, "with-"+gate, annotations), metav1.CreateOptions{})
		require.NoError(t, err)
		for i, injected := range pod.Spec.InitContainers {
			assert.ErrorContains(t, changed(pod, "replace", fmt.Sprintf("initContainers/%d/image", i), "another:1"),
				"ImageChangedInPlace: container "+injected.Name, gate)
		}
	}
}

// A person who may add ephemeral containers must not mount the agent's volumes. With these volumes
// the person could replace the agent's socket or binary, or read the agent's service account token.
func TestEphemeralContainerMountsNoVolumeOfTheAgent(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), app.Bare(s, "alone", webhook.Claims), metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, debug(s, pod, ""))
	mounted := 0
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == api.Volume || volume.Name == api.CredentialsVolume {
			mounted++
			assert.ErrorContains(t, debug(s, pod, "", corev1.VolumeMount{Name: volume.Name, MountPath: "/mnt"}), "InjectedVolumeMounted: ")
		}
	}
	assert.Equal(t, 2, mounted)
}

// An ephemeral container that targets an injected container shares the processes of that container.
// Through /proc the ephemeral container could read the agent's token.
func TestEphemeralContainerTargetsNoInjectedContainer(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	targeted := 0
	for gate := range admitted() {
		pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(), app.Bare(s, "with-"+string(gate),
			map[string]string{api.LockAnnotation: "with-" + string(gate), api.GateAnnotation: string(gate)}), metav1.CreateOptions{})
		require.NoError(t, err)
		for _, injected := range pod.Spec.InitContainers {
			targeted++
			assert.ErrorContains(t, debug(s, pod, injected.Name), "InjectedContainerTargeted: ", gate)
		}
		assert.NoError(t, debug(s, pod, pod.Spec.Containers[0].Name), gate)
	}
	assert.NotZero(t, targeted)
}

// debug adds an ephemeral container to a pod by dry run. The arguments are the target of the
// container, and the mounts of the container.
func debug(s *space.Space, pod *corev1.Pod, target string, mounts ...corev1.VolumeMount) error {
	s.Helper()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: pod.Spec.Containers[0].Image, VolumeMounts: mounts},
		TargetContainerName:      target,
	}}}})
	require.NoError(s, err)
	_, err = s.Client.CoreV1().Pods(s.Namespace).Patch(s.Context(), pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{DryRun: webhook.DryRun}, "ephemeralcontainers")
	return err
}
