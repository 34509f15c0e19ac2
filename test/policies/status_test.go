// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/api"
)

// isAgent reports whether the Role of enroll for agents gives a right.
func isAgent(a authorizer.Attributes) bool {
	switch a.GetResource() {
	case "agents":
		return a.GetVerb() == "be"
	case "pods":
		return a.GetSubresource() == "status" && a.GetVerb() == "patch"
	}
	return false
}

// byAgent returns the messages of the policies that refuse a change of a pod's status by the agent
// of the same pod.
func byAgent(t *testing.T, of *corev1.Pod, change func(*corev1.Pod)) []string {
	t.Helper()
	changed := of.DeepCopy()
	change(changed)
	return refusals(t, request{
		by: pod(of.Name, string(of.UID)), may: isAgent, resource: podResource, subresource: "status", in: namespace(shop, true), object: changed, old: of,
	})
}

// showing returns a change that writes these conditions.
func showing(conditions ...corev1.PodCondition) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Status.Conditions = conditions }
}

// ready returns the condition that an agent writes.
func ready(reason, message string) corev1.PodCondition {
	return corev1.PodCondition{Type: api.ReadyCondition, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}

// A huge text in a pod's status would fill etcd, and escape sequences could change a terminal.
func TestStatusPolicyBoundsTheConditionOfAnAgent(t *testing.T) {
	pod := gatedPod("web")
	long := ready("Holding", "this pod holds lock.a")
	long.Status = corev1.ConditionStatus(strings.Repeat("T", 1000))
	for what, change := range map[string]func(*corev1.Pod){
		"a message of a megabyte":   showing(ready("Holding", strings.Repeat("a", 1_000_000))),
		"a message above the bound": showing(ready("Holding", strings.Repeat("é", 32769))),
		"escape sequences":          showing(ready("Holding", "\x1b[31m")),
		"a line break":              showing(ready("Holding", "a\nb")),
		"a reversal of letters":     showing(ready("Holding", "\u202eabc")),
		"a long reason":             showing(ready(strings.Repeat("R", 129), "this pod holds lock.a")),
		"a reason of symbols":       showing(ready("\x1b[31m", "this pod holds lock.a")),
		"a long status":             showing(long),
		"two conditions":            showing(ready("Holding", "a"), ready("Holding", "b")),
	} {
		refused := byAgent(t, pod, change)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: an agent writes one condition "+api.ReadyCondition, what)
	}
	refused := byAgent(t, pod, func(pod *corev1.Pod) {
		pod.Annotations[api.DeletionCostAnnotation] = strings.Repeat("9", 100_000)
	})
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "which is a number")
}

func TestAgentOnlyAddsTheConditionOfADisruption(t *testing.T) {
	disruption := func(status corev1.ConditionStatus, reason, message string) corev1.PodCondition {
		return corev1.PodCondition{Type: api.DisruptionCondition, Status: status, Reason: reason, Message: message}
	}
	pod := gatedPod("web")
	pod.Status.Conditions = []corev1.PodCondition{ready("Holding", "a")}
	both := func(of corev1.PodCondition) func(*corev1.Pod) { return showing(ready("Holding", "a"), of) }
	for _, why := range ends.All() {
		refused := byAgent(t, pod, both(disruption("True", why.Reason, "the pod's hold of lock.a has ended")))
		assert.Equal(t, why.Disrupts, len(refused) == 0, why.Reason)
	}
	// After two minutes Kubernetes sets the condition of a pod that lives on to False.
	stale := pod.DeepCopy()
	both(disruption("False", "Yielded", ""))(stale)
	assert.Empty(t, byAgent(t, stale, both(disruption("True", "Lost", "the pod's hold of lock.a has ended"))))
	for what, of := range map[string]corev1.PodCondition{
		"the status False": disruption("False", "Yielded", ""), "no reason": disruption("True", "", ""), "a reason of Kubernetes": disruption("True", "PreemptionByScheduler", ""),
		"escape sequences": disruption("True", "Yielded", "\x1b[31m"), "a long message": disruption("True", "Yielded", strings.Repeat("a", 40_000)),
	} {
		refused := byAgent(t, pod, both(of))
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: an agent only adds the condition DisruptionTarget", what)
	}
	evicted := pod.DeepCopy()
	both(disruption("True", "EvictionByEvictionAPI", "by a person"))(evicted)
	for what, change := range map[string]func(*corev1.Pod){
		"another reason": both(disruption("True", "Yielded", "")), "removed": showing(ready("Holding", "a")),
	} {
		require.Len(t, byAgent(t, evicted, change), 1, what)
	}
	assert.Empty(t, byAgent(t, evicted, showing(ready("Draining", "b"), evicted.Status.Conditions[1])), "its own condition still changes")
	require.Len(t, byAgent(t, pod, both(corev1.PodCondition{Type: "PodScheduled", Status: "False"})), 1)
}

func TestStatusPolicyAdmitsWhatAllAgentVersionsWrite(t *testing.T) {
	pod := gatedPod("web")
	var slots []string
	for i := range 64 { // the most locks and singletons of a pod in version 0.1.0
		slots = append(slots, fmt.Sprintf("lock.%0248d", i))
	}
	for _, condition := range []corev1.PodCondition{
		ready("Holding", "this pod holds "+strings.Join(slots, ", ")+"; its application does not pass its probes"),
		ready("", ""), ready(strings.Repeat("R", 128), "“é 𝄞”…"),
		{Type: api.ReadyCondition, Status: corev1.ConditionFalse, Reason: "StandingBy"},
	} {
		assert.Empty(t, byAgent(t, pod, showing(condition)), condition.Reason)
	}
	assert.Empty(t, byAgent(t, pod, func(pod *corev1.Pod) {
		pod.Annotations[api.DeletionCostAnnotation] = api.HolderDeletionCost
		pod.Labels[api.RoleLabel] = api.RoleHolder
	}))
	// An agent first sends an empty patch. A condition from before the policy must not refuse it.
	before := pod.DeepCopy()
	showing(ready("Holding", strings.Repeat("\x1b[31m", 10_000)))(before)
	before.Annotations[api.DeletionCostAnnotation] = "a person's"
	assert.Empty(t, byAgent(t, before, func(*corev1.Pod) {}))
	assert.Empty(t, byAgent(t, before, showing(ready("Holding", "this pod holds lock.a"))), "the agent replaces the condition")
}

// Each manager of server-side apply gets an entry, so many managers fill the pod. The API server then
// refuses each write that makes the pod larger, such as the write with the time of a deletion.
// A user who may change pods could add 40,000 labels. Then each write of the pod's agent took an API
// server 17 s.
func TestAgentLeavesVeryManyLabelsAsTheyAre(t *testing.T) {
	pod := gatedPod("web")
	for i := range 2000 - len(pod.Labels) - 1 {
		pod.Labels[fmt.Sprint("x", i)] = ""
	}
	hold := func(pod *corev1.Pod) { pod.Labels[api.RoleLabel] = "holder" }
	assert.Empty(t, byAgent(t, pod, hold))
	pod.Labels["last"] = ""
	require.Len(t, byAgent(t, pod, hold), 1)
	assert.Empty(t, byAgent(t, pod, showing(ready("Holding", "this pod holds lock.a"))), "an agent may still show its readiness")
}

func TestAgentNeverFillsItsPodByApply(t *testing.T) {
	pod := gatedPod("web")
	pod.ManagedFields = []metav1.ManagedFieldsEntry{applied("gitops", metav1.ManagedFieldsOperationApply, 40)}
	refused := byAgent(t, pod, func(pod *corev1.Pod) {
		pod.ManagedFields = append(pod.ManagedFields, applied("m", metav1.ManagedFieldsOperationApply, 40))
	})
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: an agent applies no pod")
	for what, list := range map[string][]metav1.ManagedFieldsEntry{
		"its own entry": append(slices.Clone(pod.ManagedFields), applied("metaparticle-agent", metav1.ManagedFieldsOperationUpdate, 40)),
		"a shorter one": {applied("gitops", metav1.ManagedFieldsOperationApply, 4)},
		"none":          nil,
	} {
		assert.Empty(t, byAgent(t, pod, func(pod *corev1.Pod) { pod.ManagedFields = list }), what)
	}
}
