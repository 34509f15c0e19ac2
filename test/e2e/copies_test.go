// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// leftover is how the refusal of a copy begins.
const leftover = "Leftover: "

// copies returns ways in which people copy a pod: the flags of kubectl debug.
func copies() map[string][]string {
	return map[string][]string{
		"a container beside":                   {"--image=" + image, "--container=look", "--", "/app"},
		"a container beside, shared processes": {"--image=" + image, "--container=look", "--share-processes=true", "--", "/app"},
		"a container beside, own processes":    {"--image=" + image, "--container=look", "--share-processes=false", "--", "/app"},
		"another image":                        {"--image=" + image, "--container=app", "--share-processes=false"},
		"another image by name":                {"--set-image=app=" + image, "--share-processes=false"},
		"another image in every container":     {"--set-image=*=" + image, "--share-processes=false"},
		"another command":                      {"--container=app", "--share-processes=false", "--", "/app"},
		"no init containers":                   {"--set-image=app=" + image, "--share-processes=false", "--keep-init-containers=false"},
		"its labels":                           {"--set-image=app=" + image, "--share-processes=false", "--keep-labels"},
		"its annotations":                      {"--set-image=app=" + image, "--share-processes=false", "--keep-annotations"},
		"labels and annotations":               {"--set-image=app=" + image, "--share-processes=false", "--keep-labels", "--keep-annotations"},
		"the same node":                        {"--set-image=app=" + image, "--same-node", "--share-processes=false"},
	}
}

// compat: impossible/copies refused Leftover
func TestCopyOfAGatedPodIsRefused(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	a := lasting("copied")
	a.replicas = 2
	h := deployHolding(t, a, "it needs the record")
	for way, flags := range copies() {
		t.Run(way, func(t *testing.T) {
			out, err := h.kubectl("", append([]string{"debug", h.victim.Name, "--copy-to=copy"}, flags...)...)
			assert.Error(t, err)
			assert.Regexp(t, leftover+"|MarksForged: ", out)
			_, err = h.client.CoreV1().Pods(h.name).Get(t.Context(), "copy", metav1.GetOptions{})
			if !assert.True(t, apierrors.IsNotFound(err), "%v", err) {
				h.mustKubectl("", "delete", "pod", "copy", "--now")
			}
		})
	}
	t.Run("the ways out", func(t *testing.T) {
		h.debug(h.victim)
		h.mustKubectl("", "debug", h.victim.Name, "--copy-to=shell", "--keep-init-containers=false", "--container=app",
			"--", "/app", "-run-for=1ms", "-exit-code=5")
		h.await(startTimeout, "the copy runs what it is told", func() bool {
			pod := h.pod("shell")
			return pod != nil && len(pod.Status.ContainerStatuses) == 1 && endedWith(pod.Status.ContainerStatuses[0], 5)
		})
		h.mustKubectl("", "delete", "pod", "shell", "--now")
	})
	// What no copy has: the slot of the pod that is gone.
	h.deletePod(h.victim)
	var next *record.Process
	h.await(released, "a pod of the workload takes over", func() bool { next = h.after(h.a, h.before); return next != nil })
	assert.Equal(t, a.name, h.pod(next.Pod).Labels["app"])
}

func endedWith(status corev1.ContainerStatus, code int32) bool {
	for _, state := range []corev1.ContainerState{status.State, status.LastTerminationState} {
		if state.Terminated != nil && state.Terminated.ExitCode == code {
			return true
		}
	}
	return false
}

// anonymous is a pod with all that it runs, and nothing that it says.
func anonymous(pod *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "copy"}, Spec: *pod.Spec.DeepCopy()}
}

func noInits(pod *corev1.Pod) { pod.Spec.InitContainers = nil }

// respelled leaves an agent alone, and spells its flag otherwise: the last of the
// words stands before the names of the slots.
func respelled(words ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		for i := range pod.Spec.Containers {
			pod.Spec.Containers[i].Command = []string{"/app"}
		}
		agent := initContainer(pod, api.AgentContainer)
		i := slices.IndexFunc(agent.Args, func(arg string) bool { return strings.HasPrefix(arg, "-slots=") })
		value := strings.TrimPrefix(agent.Args[i], "-slots=")
		last := len(words) - 1
		agent.Args = slices.Replace(agent.Args, i, i+1, append(slices.Clone(words[:last]), words[last]+value)...)
	}
}

// A copy is refused by what it runs, in every namespace, and nothing else is.
func TestCopyIsRefusedByWhatItRunsInEveryNamespace(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	elsewhere := newSpace(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	in := func(namespace string, pod *corev1.Pod) error {
		pod.Namespace = namespace
		_, err := cluster.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	for gate := range missingOf {
		complete := s.complete(gate)
		for what, test := range map[string]struct {
			take    func(*corev1.Pod)
			refused bool
		}{
			"everything that runs": {func(*corev1.Pod) {}, true},
			"an agent alone": {func(pod *corev1.Pod) {
				for i := range pod.Spec.Containers {
					pod.Spec.Containers[i].Command = []string{"/app"}
				}
			}, true},
			"an agent alone, its flag with two dashes": {respelled("--slots="), true},
			"an agent alone, its flag in two words":    {respelled("-slots", ""), true},
			// With the gate "readiness" the application runs in all pods anyway.
			"no init containers": {noInits, gate != api.GateReadiness},
			"a shell in the gate's volume": {func(pod *corev1.Pod) {
				noInits(pod)
				for i := range pod.Spec.Containers {
					pod.Spec.Containers[i].Command = []string{"/app"}
				}
			}, gate == api.GatePod},
		} {
			t.Run(string(gate)+" "+what, func(t *testing.T) {
				for _, namespace := range []string{s.name, elsewhere.name, metav1.NamespaceSystem} {
					pod := anonymous(complete)
					test.take(pod)
					err := in(namespace, pod)
					if !test.refused {
						assert.NoError(t, err, namespace)
						continue
					}
					assert.True(t, apierrors.IsForbidden(err), "%s: %v", namespace, err)
					assert.ErrorContains(t, err, leftover, namespace)
					assert.ErrorContains(t, err, "kubectl debug -it POD --image=IMAGE --target=CONTAINER", namespace)
				}
			})
		}
	}
	t.Run("somebody else's flags", func(t *testing.T) {
		pod := s.bare("stranger", nil)
		pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Args = []string{"/metaparticle/agent", "exec"}, []string{"run", "-slots=4", "-slots", "4", "# -slots=lock.x", "\n-slots=lock.x"}
		for _, namespace := range []string{s.name, elsewhere.name, metav1.NamespaceSystem} {
			assert.NoError(t, in(namespace, pod.DeepCopy()), namespace)
		}
	})
}

// A copy with all marks, which no webhook sees: the pod has no controller, so the
// slots of a Deployment are not its own.
func TestCopyWithAllMarksIsRefusedWithoutTheWebhook(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := lasting("marked")
	a.replicas = 1
	s.deploy(a)
	original := s.awaitHolder(deploymentSlot(a.name))
	own := s.bare("own", claims)
	var gated *corev1.Pod
	s.within(startTimeout, func() (ok bool) {
		var err error
		gated, err = s.try(own)
		return err == nil
	})
	require.NotNil(t, gated)
	f := s.forge()
	made := func(pod *corev1.Pod) *corev1.Pod {
		made := anonymous(pod)
		made.Labels, made.Annotations = pod.Labels, pod.Annotations
		return made
	}
	_, err := f.try(made(original))
	assert.True(t, apierrors.IsForbidden(err), "%v", err)
	assert.ErrorContains(t, err, leftover+"container metaparticle-agent competes for the slots of a workload that the pod does not belong to")
	for what, words := range map[string][]string{"two dashes": {"--slots="}, "two words": {"--slots", ""}, "two flags": {"-slots=lock.x", "-slots="}} {
		other := made(original)
		respelled(words...)(other)
		for i := range other.Spec.Containers {
			other.Spec.Containers[i].Command = original.Spec.Containers[i].Command
		}
		_, err = f.try(other)
		assert.ErrorContains(t, err, leftover+"container metaparticle-agent competes for the slots", what)
	}
	same := made(gated)
	same.Name = gated.Name
	_, err = f.try(same)
	assert.NoError(t, err, "a bare pod with its own slot")
	_, err = f.try(made(gated))
	assert.ErrorContains(t, err, leftover, "under another name")
	s.never(time.Second, "anything came of it", func() bool { return s.pod("copy") != nil })
}

// A pod with very many arguments costs the API server little, in every namespace.
func TestArgumentsCostPoliciesLittle(t *testing.T) {
	t.Parallel()
	s := newSpace(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	fastest := func(args ...string) time.Duration {
		pod := s.bare("wordy", nil)
		pod.Spec.Containers[0].Args = args
		best := time.Duration(math.MaxInt64)
		for range 3 {
			began := time.Now()
			_, err := s.client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{DryRun: dry})
			require.NoError(t, err)
			best = min(best, time.Since(began))
		}
		return best
	}
	const many = 50_000
	one, all := fastest(strings.Repeat("a ", many)), fastest(slices.Repeat([]string{"a"}, many)...)
	// A comprehension over the arguments took a hundred times as long.
	assert.Less(t, all, 40*one)
}
