// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// The policy on marks must agree with the function podspec.HasGate. Otherwise enroll would give
// rights for pods that the policy refuses, or give no rights for pods that the policy admits.
func TestPolicyRefusesPodsWithMarksButWithoutGate(t *testing.T) {
	text, err := os.ReadFile("../../api/podspec/testdata/pods.yaml")
	require.NoError(t, err)
	var rows []struct {
		Name string
		Gate bool
		Spec corev1.PodSpec
	}
	require.NoError(t, yaml.Unmarshal(text, &rows))
	require.NotEmpty(t, rows)
	here := namespace(shop, true)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Name: "odd", Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.SlotsAnnotation: "lock.odd"},
				},
				Spec: row.Spec,
			}
			assert.Equal(t, row.Gate, podspec.HasGate(&row.Spec))
			if refused := created(t, here, pod); row.Gate {
				assert.Empty(t, refused)
			} else {
				require.Len(t, refused, 1)
				assert.Contains(t, refused[0], "metaparticle-marks: MarksForged: ")
			}
			for _, gate := range []api.Gate{api.GateContainer, api.GatePod, api.GateReadiness} {
				pod.Annotations[api.LockAnnotation], pod.Annotations[api.GateAnnotation] = "odd", string(gate)
				if len(created(t, here, pod)) == 0 {
					assert.True(t, row.Gate, "a claim with %s needs the parts, and more", gate)
				}
			}
		})
	}
}

// A person who may write pods, or only their status, must not choose the rights of a service account.
func TestMarksOfAGatedPodNeverChange(t *testing.T) {
	claim := locked(t, api.GateContainer)
	waiter := gated(t, bare("later", map[string]string{api.AfterAnnotation: "lock.a"}))
	plain := bare("plain", nil)
	forged := plain.DeepCopy()
	forged.Labels, forged.Annotations = map[string]string{api.GatedLabel: api.Gated}, map[string]string{api.SlotsAnnotation: "lock.a"}
	for _, subresource := range []string{"", "status", "ephemeralcontainers", "resize"} {
		changed := func(old *corev1.Pod, take func(*corev1.Pod)) []string {
			now := old.DeepCopy()
			take(now)
			return refusals(t, request{
				by: &user.DefaultInfo{Name: "person"}, resource: podResource, subresource: subresource, in: namespace(shop, true), object: now, old: old,
			})
		}
		for what, test := range map[string]struct {
			of      *corev1.Pod
			take    func(*corev1.Pod)
			refused bool
		}{
			"another label":              {claim, func(pod *corev1.Pod) { pod.Labels["quarantine"] = "true" }, false},
			"another annotation":         {claim, annotated("a", "b"), false},
			"the label says no":          {claim, marked("false"), true},
			"no label":                   {claim, marked(""), true},
			"the slots of others":        {claim, annotated(api.SlotsAnnotation, "lock.theirs"), true},
			"no slots":                   {claim, unannotated(api.SlotsAnnotation), true},
			"the label of a claim":       {waiter, marked(api.Gated), true},
			"slots of a waiter":          {waiter, annotated(api.SlotsAnnotation, "lock.a"), true},
			"a label on an ungated pod":  {plain, func(pod *corev1.Pod) { pod.Labels = forged.Labels }, true},
			"slots of an ungated pod":    {plain, func(pod *corev1.Pod) { pod.Annotations = forged.Annotations }, true},
			"marks from before, removed": {forged, func(pod *corev1.Pod) { pod.Labels, pod.Annotations = nil, nil }, false},
			"marks from before, changed": {forged, annotated(api.SlotsAnnotation, "lock.b"), true},
		} {
			refused := changed(test.of, test.take)
			if !test.refused {
				assert.Empty(t, refused, "%s %s", subresource, what)
				continue
			}
			require.Len(t, refused, 1, "%s %s", subresource, what)
			assert.Contains(t, refused[0], "metaparticle-marks: MarksChanged: ")
		}
	}
}

// The API server copies the labels and annotations of a Binding to the pod.
func TestBindingCarriesNoMarks(t *testing.T) {
	for what, test := range map[string]struct {
		labels, annotations map[string]string
		by                  string
	}{
		"the scheduler's": {nil, nil, ""},
		"others":          {map[string]string{"a": "b"}, map[string]string{"c": "d"}, ""},
		"the label":       {map[string]string{api.GatedLabel: api.Gated}, nil, "binding"},
		"the slots":       {nil, map[string]string{api.SlotsAnnotation: "lock.a"}, "binding"},
	} {
		binding := &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "web-0", Labels: test.labels, Annotations: test.annotations},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "node"},
		}
		bind := request{by: &user.DefaultInfo{Name: "person"}, resource: corev1.SchemeGroupVersion.WithResource("bindings"), in: namespace(shop, true), object: binding}
		assert.Equal(t, test.by, refusing(refusals(t, bind)), what)
		bind.resource, bind.subresource = podResource, "binding"
		assert.Equal(t, test.by, refusing(refusals(t, bind)), "%s of a pod", what)
	}
}
