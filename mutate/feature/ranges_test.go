// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Each case is a pod as LimitRanger has left it, that the API server admits without the agent.
func TestAgentFitsIntoEachLimitRange(t *testing.T) {
	const (
		one   = "requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}"
		burst = "requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 1Gi}"
		most  = "{type: Container, max: {cpu: 2, memory: 2Gi}, default: {cpu: 2, memory: 2Gi}, defaultRequest: {cpu: 2, memory: 2Gi}}"
	)
	for name, test := range map[string]struct{ whole, container, item, requests, limits, misfit string }{
		"no range":                           {whole: one, container: one, requests: "cpu=0 memory=0", limits: "cpu=100m memory=64Mi"},
		"limits of the pod alone":            {whole: "limits: {cpu: 1, memory: 1Gi}"},
		"a small pod":                        {whole: "requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 50m, memory: 32Mi}", requests: "cpu=0 memory=0", limits: "cpu=50m memory=32Mi"},
		"requests of the pod alone":          {whole: "requests: {cpu: 1, memory: 1Gi}", requests: "cpu=0 memory=0", limits: "cpu=100m memory=64Mi"},
		"requests, and limits in containers": {whole: "requests: {cpu: 1, memory: 1Gi}", container: one, requests: "cpu=0 memory=0", limits: "cpu=0 memory=0"},
		"a container requests, the pod not":  {whole: "limits: {memory: 2Gi}", container: "requests: {memory: 1Gi}", requests: "memory=0", limits: "memory=64Mi"},
		"a maximum beside a full pod":        {whole: one, container: one, item: most, requests: "cpu=0 memory=0", limits: "cpu=100m memory=64Mi"},
		"a minimum, and room":                {whole: one, container: "requests: {cpu: 900m, memory: 900Mi}", item: "{type: Container, min: {cpu: 20m, memory: 20Mi}}", requests: "cpu=20m memory=20Mi", limits: "cpu=100m memory=64Mi"},
		"a minimum, and a full pod":          {whole: one, container: one, item: "{type: Container, min: {memory: 20Mi}}", requests: "cpu=0 memory=20Mi", limits: "cpu=100m memory=64Mi", misfit: "each container request memory"},
		"a ratio, and a full pod":            {whole: one, container: one, item: "{type: Container, maxLimitRequestRatio: {cpu: 2}}", requests: "cpu=100m memory=0", limits: "cpu=100m memory=64Mi", misfit: "each container request cpu"},
		"the pod's own maximum, and a whole": {whole: one, container: one, item: "{type: Pod, max: {cpu: 1, memory: 1Gi}}", requests: "cpu=0 memory=0", limits: "cpu=100m memory=64Mi"},
		"a maximum for the pod, Burstable":   {container: burst, item: "{type: Pod, max: {memory: 1Gi}}", requests: "cpu=10m memory=0"},
		"a maximum for the pod, some room":   {container: burst, item: "{type: Pod, max: {memory: 1054Mi}}", requests: "cpu=10m memory=16Mi", limits: "memory=30Mi"},
		"a maximum for the pod, Guaranteed":  {container: one, item: "{type: Pod, max: {memory: 1Gi}}", requests: "cpu=100m memory=64Mi", limits: "cpu=100m memory=64Mi", misfit: "allows 1Gi of memory for a pod"},
		"room in it, Guaranteed":             {container: one, item: "{type: Pod, max: {memory: 1054Mi}}", requests: "cpu=100m memory=30Mi", limits: "cpu=100m memory=30Mi"},
		"a ratio for the pod":                {container: burst, item: "{type: Pod, maxLimitRequestRatio: {memory: 1}}", requests: "cpu=10m memory=64Mi", limits: "memory=64Mi"},
		"a maximum below the agent's need":   {container: "requests: {memory: 8Mi}, limits: {memory: 8Mi}", item: "{type: Container, max: {memory: 8Mi}}", requests: "cpu=10m memory=8Mi", limits: "memory=8Mi", misfit: "allows a container 8Mi"},
		"a range for claims of volumes":      {container: burst, item: "{type: PersistentVolumeClaim, max: {storage: 1Gi}}", requests: "cpu=10m memory=16Mi", limits: "memory=64Mi"},
		"BestEffort":                         {item: "{type: Pod, max: {memory: 1Gi}}"},
	} {
		pod := new(corev1.Pod)
		text := fmt.Sprintf("spec: {containers: [{name: app, resources: {%s}}]}", test.container)
		if test.whole != "" {
			text = fmt.Sprintf("spec: {resources: {%s}, containers: [{name: app, resources: {%s}}]}", test.whole, test.container)
		}
		require.NoError(t, yaml.Unmarshal([]byte(text), pod), name)
		p := &Pod{Facts: Facts{Pod: pod}}
		if test.item != "" {
			var item corev1.LimitRangeItem
			require.NoError(t, yaml.Unmarshal([]byte(test.item), &item), name)
			p.Limits = []corev1.LimitRange{{ObjectMeta: metav1.ObjectMeta{Name: "range"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{item}}}}
		}
		is := resourcesOf(p)
		assert.Equal(t, test.requests, listed(is.Requests), "%s: requests", name)
		assert.Equal(t, test.limits, listed(is.Limits), "%s: limits", name)
		warnings := warnOfRanges(p)
		assert.Equal(t, test.misfit != "", len(warnings) > 0, "%s: %v", name, warnings)
		if test.misfit != "" && len(warnings) > 0 {
			assert.Equal(t, reason.AgentDoesNotFit, warnings[0].Reason, name)
			assert.Contains(t, warnings[0].Detail, test.misfit, name)
			assert.Contains(t, warnings[0].Detail, `LimitRange "range"`, name)
		}
	}
}

// listed returns the CPU and the memory of a list.
func listed(list corev1.ResourceList) string {
	text := ""
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if quantity, ok := list[name]; ok {
			if text != "" {
				text += " "
			}
			text += fmt.Sprintf("%s=%s", name, quantity.String())
		}
	}
	return text
}
