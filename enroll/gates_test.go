// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// In a namespace that has opted out, a gated pod goes on as long as it lives,
// whichever its gate. What anybody can write on a living pod is no gate.
func TestEveryGateCountsWhereTheNamespaceHasOptedOut(t *testing.T) {
	agent := corev1.Container{Name: api.AgentContainer, Args: []string{"run", "-gate=readiness"}}
	shows := []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}}
	tests := map[string]struct {
		spec corev1.PodSpec
		gate bool
	}{
		"container": {corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: api.AgentContainer}},
			Containers:     []corev1.Container{{Name: "app", Command: []string{api.AgentBinary, "exec"}}},
		}, true},
		"pod":                     {corev1.PodSpec{InitContainers: []corev1.Container{{Name: api.AgentContainer}, {Name: api.WaitContainer}}}, true},
		"readiness":               {corev1.PodSpec{InitContainers: []corev1.Container{agent}, ReadinessGates: shows}, true},
		"without an agent":        {corev1.PodSpec{InitContainers: []corev1.Container{{Name: api.WaitContainer}}, ReadinessGates: shows}, false},
		"without the condition":   {corev1.PodSpec{InitContainers: []corev1.Container{agent}}, false},
		"without anything to say": {corev1.PodSpec{InitContainers: []corev1.Container{{Name: api.AgentContainer}}, ReadinessGates: shows}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: test.spec}
			pod.Annotations = map[string]string{api.GateAnnotation: "readiness", api.SlotsAnnotation: "lock.x"}
			assert.Equal(t, test.gate, hasGate(pod))
			c := claims{}
			c.addPods([]corev1.Pod{*pod}, false)
			assert.Len(t, c, map[bool]int{true: 1, false: 0}[test.gate])
		})
	}
}
