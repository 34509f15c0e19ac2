// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// asking has the annotations of a pod whose program uses the local API. These tests of admission
// run no program.
var asking = map[string]string{api.LocalAnnotation: "lock/a, semaphore/pool=3"}

// In this test a person wrote the gated pod by hand, or changed a copy of a gated pod. No webhook
// judges the result. The policies refuse the pod if its agent is missing, or serves other claims than
// those in the pod's annotation.
//
// docs/compatibility.md: impossible/local-api-by-hand refused NotInjected
func TestPodWithAForgedProgramGateIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	elsewhere := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	whole := webhook.Gated(s, app.Bare(s, "asker", asking))
	require.Equal(t, "lock.a,semaphore.pool.0,semaphore.pool.1,semaphore.pool.2", whole.Annotations[api.SlotsAnnotation])
	require.Equal(t, api.Gated, whole.Labels[api.GatedLabel])
	f := forge(s)
	_, err := webhook.Try(f.Space, whole.DeepCopy())
	require.NoError(t, err, "with all its parts")
	const lasts = "-lease-duration=30s"
	for what, take := range map[string]func(*corev1.Pod){
		"no agent":             without(api.AgentContainer),
		"a command of a shell": func(pod *corev1.Pod) { initContainer(pod, api.AgentContainer).Command = []string{"sh"} },
		"an agent that ends": func(pod *corev1.Pod) {
			agent := initContainer(pod, api.AgentContainer)
			agent.RestartPolicy, agent.Lifecycle = nil, nil
		},
		"a claim more":       args(api.AgentContainer, "api", "-claims=election/b,lock/a,semaphore/pool=3", lasts),
		"a claim less":       args(api.AgentContainer, "api", "-claims=lock/a", lasts),
		"another size":       args(api.AgentContainer, "api", "-claims=lock/a,semaphore/pool=30", lasts),
		"a longer name":      args(api.AgentContainer, "api", "-claims=lock/ab,semaphore/pool=3", lasts),
		"two lists":          args(api.AgentContainer, "api", "-claims=lock/a,semaphore/pool=3", "-claims=lock/b", lasts),
		"other credentials":  args(api.AgentContainer, "api", "-claims=lock/a,semaphore/pool=3", lasts, "-credentials=/x"),
		"the node's network": func(pod *corev1.Pod) { pod.Spec.HostNetwork = true },
		"a socket on the node": func(pod *corev1.Pod) {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: api.LocalVolume, VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/run"},
			}})
			args(api.AgentContainer, "api", "-claims=lock/a,semaphore/pool=3", lasts, "-socket="+api.LocalSocket)(pod)
		},
		"no argument":             args(api.AgentContainer, "api"),
		"no label":                func(pod *corev1.Pod) { delete(pod.Labels, api.GatedLabel) },
		"the label of conditions": func(pod *corev1.Pod) { pod.Labels[api.GatedLabel] = api.GatedAfter },
		"no slots":                func(pod *corev1.Pod) { delete(pod.Annotations, api.SlotsAnnotation) },
		"a lock beside":           func(pod *corev1.Pod) { pod.Annotations[api.LockAnnotation] = "b" },
		"an opt-out":              func(pod *corev1.Pod) { pod.Annotations[api.InjectAnnotation] = "false" },
	} {
		t.Run(what, func(t *testing.T) {
			pod := whole.DeepCopy()
			take(pod)
			_, err := webhook.Try(f.Space, pod)
			assert.Regexp(t, "NotInjected: |MarksForged: |Leftover: |OptedOut: ", fmt.Sprint(err))
			_, err = webhook.Try(elsewhere, pod)
			assert.Regexp(t, "NamespaceNotOptedIn: |MarksForged: |Leftover: |OptedOut: ", fmt.Sprint(err))
		})
	}
	_, err = webhook.Try(elsewhere, app.Bare(elsewhere, "asker", asking))
	assert.ErrorContains(t, err, "NamespaceNotOptedIn: the pod has metaparticle.io/api")
}

// The annotation metaparticle.io/on-api-loss promises that a shim kills its program after the loss
// of a hold. The policies refuse a pod that lacks a part of its shims.
func TestLocalAPIPodWithIncompleteShimsIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	whole := webhook.Gated(s, app.Bare(s, "killed", map[string]string{api.LocalAnnotation: "lock/a", api.OnAPILossAnnotation: "kill"}))
	f := forge(s)
	_, err := webhook.Try(f.Space, whole.DeepCopy())
	require.NoError(t, err, "with all its parts")
	const lasts = "-lease-duration=30s"
	for what, take := range map[string]func(*corev1.Pod){
		"no shim":               func(pod *corev1.Pod) { pod.Spec.Containers[0].Command = []string{"/app"} },
		"an agent without them": args(api.AgentContainer, "api", "-claims=lock/a", lasts),
		"another container":     args(api.AgentContainer, "api", "-claims=lock/a", lasts, "-containers="+whole.Spec.Containers[0].Name+",x", "-port=80"),
		"no container":          args(api.AgentContainer, "api", "-claims=lock/a", lasts, "-containers=x"),
		"shims without a promise": func(pod *corev1.Pod) {
			delete(pod.Annotations, api.OnAPILossAnnotation)
		},
		"a volume of the node": func(pod *corev1.Pod) {
			i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.Volume })
			pod.Spec.Volumes[i].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/run"}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			pod := whole.DeepCopy()
			take(pod)
			_, err := webhook.Try(f.Space, pod)
			assert.Regexp(t, "NotInjected: |MarksForged: |Leftover: ", fmt.Sprint(err))
		})
	}
}
