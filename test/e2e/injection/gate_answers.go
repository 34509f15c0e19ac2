// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// The policy on marks must agree with the function podspec.HasGate. Otherwise enroll would give
// rights for pods that the policy refuses, or give no rights for pods that the policy admits.
func TestPolicyRefusesPodsWithMarksButWithoutGate(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../api/podspec/testdata/pods.yaml")
	require.NoError(t, err)
	var rows []struct {
		Name string
		Gate bool
		Spec corev1.PodSpec
	}
	require.NoError(t, yaml.Unmarshal(text, &rows))
	require.NotEmpty(t, rows)
	f := forge(space.New(t))
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{
					Name: "odd", Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.SlotsAnnotation: "lock.odd"},
				},
				Spec: row.Spec,
			}
			assert.Equal(t, row.Gate, podspec.HasGate(&row.Spec))
			if _, err := webhook.Try(f.Space, pod); row.Gate {
				assert.NoError(t, err)
			} else {
				assert.True(t, apierrors.IsForbidden(err), "%v", err)
				assert.ErrorContains(t, err, "MarksForged: ")
			}
			for _, gate := range []api.Gate{api.GateContainer, api.GatePod, api.GateReadiness} {
				pod.Annotations[api.LockAnnotation], pod.Annotations[api.GateAnnotation] = "odd", string(gate)
				if _, err := webhook.Try(f.Space, pod); err == nil {
					assert.True(t, row.Gate, "a claim with %s needs the parts, and more", gate)
				}
			}
		})
	}
}
