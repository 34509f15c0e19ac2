// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// anonymous returns a pod with the spec of the given pod, but without labels and annotations.
func anonymous(pod *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "copy"}, Spec: *pod.Spec.DeepCopy()}
}

// copied returns a copy of a pod under another name, with its labels and annotations.
func copied(pod *corev1.Pod) *corev1.Pod {
	c := anonymous(pod)
	c.Labels, c.Annotations = pod.Labels, pod.Annotations
	return c
}

// unshimmed replaces the shims of a pod's containers.
func unshimmed(pod *corev1.Pod) {
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Command = []string{"/app"}
	}
}

// noInits removes a pod's init containers.
func noInits(pod *corev1.Pod) { pod.Spec.InitContainers = nil }

// respelled writes the agent's argument "-slots=NAMES" in another way. The given words replace the text
// "-slots=". The names of the slots follow without a blank after the last of these words.
func respelled(pod *corev1.Pod, words ...string) {
	agent := initContainer(pod, api.AgentContainer)
	i := slices.IndexFunc(agent.Args, func(arg string) bool { return strings.HasPrefix(arg, "-slots=") })
	words = slices.Clone(words)
	words[len(words)-1] += strings.TrimPrefix(agent.Args[i], "-slots=")
	agent.Args = slices.Replace(slices.Clone(agent.Args), i, i+1, words...)
}

// The policies recognize a copy of a gated pod by its spec, without labels and annotations.
// The policies refuse such a copy in every namespace, and refuse no other pod.
func TestUnlabeledCopyOfGatedPodIsRefusedEverywhere(t *testing.T) {
	everywhere := []*corev1.Namespace{namespace(shop, true), namespace("other", false), namespace(metav1.NamespaceSystem, false)}
	for gate := range missingOf {
		complete := locked(t, gate)
		for what, test := range map[string]struct {
			take    func(*corev1.Pod)
			refused bool
		}{
			"everything that runs":                     {func(*corev1.Pod) {}, true},
			"an agent alone":                           {unshimmed, true},
			"an agent alone, its flag with two dashes": {func(pod *corev1.Pod) { unshimmed(pod); respelled(pod, "--slots=") }, true},
			"an agent alone, its flag in two words":    {func(pod *corev1.Pod) { unshimmed(pod); respelled(pod, "-slots", "") }, true},
			// With the gate "readiness" the application runs in all pods anyway, so the
			// policies admit the copy.
			"no init containers":           {noInits, gate != api.GateReadiness},
			"a shell in the gate's volume": {func(pod *corev1.Pod) { noInits(pod); unshimmed(pod) }, gate == api.GatePod},
		} {
			for _, in := range everywhere {
				pod := anonymous(complete)
				test.take(pod)
				refused := created(t, in, pod)
				if !test.refused {
					assert.Empty(t, refused, "%s %s", gate, what)
					continue
				}
				require.Len(t, refused, 1, "%s %s", gate, what)
				assert.Contains(t, refused[0], "metaparticle-leftover: Leftover: ")
				assert.Contains(t, refused[0], "kubectl debug -it POD --image=IMAGE --target=CONTAINER")
			}
		}
	}
	stranger := bare("stranger", nil)
	stranger.Spec.Containers[0].Command = []string{"/metaparticle/agent", "exec"}
	stranger.Spec.Containers[0].Args = []string{"run", "-slots=4", "-slots", "4", "# -slots=lock.x", "\n-slots=lock.x"}
	for _, in := range everywhere {
		assert.Empty(t, created(t, in, stranger), "somebody else's flags")
	}
}

// The copy in this test has all marks, and the webhook does not see the copy. The copy has no controller,
// so the slots of the workload are not its own.
func TestCopyOfGatedPodIsRefusedWithoutWebhook(t *testing.T) {
	const competes = "metaparticle-leftover: Leftover: container metaparticle-agent competes for the slots of a workload that the pod does not belong to"
	own, _ := jobs()
	pod := bare("nightly-x2v7k", map[string]string{api.SingletonAnnotation: "true"})
	pod.Spec.RestartPolicy, pod.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	original, here := gated(t, pod), namespace(shop, true)
	require.Empty(t, created(t, here, original))
	for what, words := range map[string][]string{
		"": {"-slots="}, "two dashes": {"--slots="}, "two words": {"--slots", ""}, "two flags": {"-slots=lock.x", "-slots="},
	} {
		other := copied(original)
		respelled(other, words...)
		refused := created(t, here, other)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], competes, what)
	}
	alone := gated(t, bare("own", map[string]string{api.SingletonAnnotation: "true"}))
	same := copied(alone)
	same.Name = alone.Name
	assert.Empty(t, created(t, here, same), "a bare pod with its own slot")
	assert.Equal(t, "leftover", refusing(created(t, here, copied(alone))), "under another name")
}
