// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"encoding/json"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// living returns the gated pod that a golden file expects.
func living(t *testing.T, pair string) *corev1.Pod {
	t.Helper()
	archive, err := txtar.ParseFile("../testdata/" + pair + ".txtar")
	require.NoError(t, err)
	for _, f := range archive.Files {
		if f.Name == "patched.yaml" {
			pod := new(corev1.Pod)
			require.NoError(t, yaml.Unmarshal(f.Data, pod))
			return pod
		}
	}
	require.FailNow(t, "no pod in "+pair)
	return nil
}

// updated returns the answer to an update, and the updated pod.
func updated(t *testing.T, before, now *corev1.Pod) (admission.Response, *corev1.Pod) {
	t.Helper()
	old, err := json.Marshal(before)
	require.NoError(t, err)
	raw, err := json.Marshal(now)
	require.NoError(t, err)
	response := NewPodHandler(Options{Images: asked{t}, Owners: asked{t}, Limits: asked{t}}).Handle(t.Context(), admission.Request{
		AdmissionRequest: admissionv1.AdmissionRequest{
			Operation: admissionv1.Update, Object: runtime.RawExtension{Raw: raw}, OldObject: runtime.RawExtension{Raw: old},
		},
	})
	pod := new(corev1.Pod)
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, response.Patches), pod))
	return response, pod
}

// docs/reference/compatibility.md: pod/labels-replaced carried
func TestWebhookRestoresMarksThatAPodUpdateRemoves(t *testing.T) {
	for _, pair := range []string{"deployment-pod", "gate-pod", "gate-readiness"} {
		before := living(t, pair)
		slots := before.Annotations[api.SlotsAnnotation]
		require.NotEmpty(t, slots)
		for name, replace := range map[string]func(*corev1.Pod){
			"labels":      func(p *corev1.Pod) { p.Labels = map[string]string{"app": "x"} },
			"no labels":   func(p *corev1.Pod) { p.Labels = nil },
			"annotations": func(p *corev1.Pod) { p.Annotations = map[string]string{"a": "b"} },
			"both":        func(p *corev1.Pod) { p.Labels, p.Annotations = nil, nil },
			"neither":     func(*corev1.Pod) {},
		} {
			now := before.DeepCopy()
			replace(now)
			response, pod := updated(t, before, now)
			assert.True(t, response.Allowed, name)
			assert.Equal(t, api.Gated, pod.Labels[api.GatedLabel], "%s %s", pair, name)
			assert.Equal(t, slots, pod.Annotations[api.SlotsAnnotation], "%s %s", pair, name)
			assert.Equal(t, now.Labels["app"], pod.Labels["app"], "what the client wrote stays")
			assert.Equal(t, name != "neither", len(response.Warnings) > 0, "%s %s", pair, name)
			again, _ := updated(t, before, pod)
			assert.Empty(t, again.Patches)
		}
	}
}

func TestWebhookRestoresOnlyRemovedMarksOfGatedPods(t *testing.T) {
	gated := living(t, "deployment-pod")
	marks := func(label, slots string) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
		p.Labels, p.Annotations = map[string]string{api.GatedLabel: label}, map[string]string{api.SlotsAnnotation: slots}
		return p
	}
	changed := gated.DeepCopy()
	changed.Labels[api.GatedLabel], changed.Annotations[api.SlotsAnnotation] = "false", "lock.theirs"
	ungated := gated.DeepCopy()
	for i := range ungated.Spec.Containers {
		ungated.Spec.Containers[i].Command = nil
	}
	noSidecar := gated.DeepCopy()
	for i := range noSidecar.Spec.InitContainers {
		noSidecar.Spec.InitContainers[i].RestartPolicy = nil
	}
	bare := func(p *corev1.Pod) *corev1.Pod {
		p = p.DeepCopy()
		p.Labels, p.Annotations = nil, nil
		return p
	}
	for name, test := range map[string]struct{ before, now *corev1.Pod }{
		"a mark with another value":         {gated, changed},
		"marks on a pod without a gate":     {marks("true", "lock.a"), bare(marks("", ""))},
		"an agent without a shim":           {ungated, bare(ungated)},
		"an agent that is no sidecar":       {noSidecar, bare(noSidecar)},
		"a pod without marks":               {bare(gated), bare(gated)},
		"new marks on a pod without a gate": {bare(marks("", "")), marks("true", "lock.a")},
	} {
		response, _ := updated(t, test.before, test.now)
		assert.True(t, response.Allowed, name)
		assert.Empty(t, response.Patches, name)
	}
	malformed := NewPodHandler(Options{}).Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Update, Object: runtime.RawExtension{Raw: []byte(`{}`)}, OldObject: runtime.RawExtension{Raw: []byte(`[]`)},
	}})
	assert.False(t, malformed.Allowed)
}
