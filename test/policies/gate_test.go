// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// A refused pod of the cluster's network, or of the webhook, could stop the whole cluster. So in the
// namespaces of these pods a claim has no effect.
func TestClaimNeverBlocksPodsOfSystemNamespaces(t *testing.T) {
	for name, blocked := range map[string]bool{metav1.NamespaceSystem: false, "metaparticle-system": false, shop: true} {
		for annotation, value := range map[string]string{
			api.LockAnnotation: "a", api.AfterAnnotation: "once.schema=7", api.BarrierAnnotation: "warm=5", api.LocalAnnotation: "lock/a",
		} {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "bare", Annotations: map[string]string{annotation: value}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
			}
			refused := refusals(t, request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: namespace(name, false), object: pod})
			assert.Equal(t, blocked, len(refused) > 0, "%s in %s: %v", annotation, name, refused)
		}
	}
}

// The webhook admits such pods. An expression above the API server's limit of cost would refuse them.
func TestGatePolicyJudgesPodsOfTheLargestSize(t *testing.T) {
	args := api.DefaultRunArgs()
	args.Slots, args.Workload = []string{api.LockLease("a")}, "Pod/gated"
	args.Probes = map[string]api.Probes{"app": {Liveness: &api.Probe{Handler: api.Handler{Exec: &api.ExecAction{
		Command: []string{strings.Repeat("x", 300_000)},
	}}}}}
	pod := gatedPod("gated")
	for i := range 32 {
		name := fmt.Sprintf("%s%02d", strings.Repeat("c", 61), i)
		args.Containers = append(args.Containers, name)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "app", Command: []string{api.ShimProgram, "exec"}})
	}
	for i := range 66 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: fmt.Sprintf("%s%02d", strings.Repeat("o", 61), i), Image: "app"})
	}
	pod.Spec.InitContainers = []corev1.Container{{
		Name: api.AgentContainer, Image: "agent", Args: append([]string{"run"}, args.Args()...), RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
	}}
	pod.Spec.Volumes = []corev1.Volume{{Name: api.Volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	pod.Annotations[api.ContainersAnnotation] = strings.Repeat(" ", 160_000) + strings.Join(args.Containers, ", ")
	created := request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: namespace(shop, true), object: pod}
	for _, refusal := range refusals(t, created) {
		assert.NotContains(t, refusal, "metaparticle-gate")
		assert.NotContains(t, refusal, "cost")
	}
	pod.Spec.Containers[1].Command = nil
	assert.Contains(t, strings.Join(refusals(t, created), "; "), "metaparticle-gate: NotInjected: ", "the policy must judge this pod")
}
