// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// conditioned has the annotations of a pod with conditions, for tests of admission.
var conditioned = map[string]string{api.AfterAnnotation: "once.schema=7, lock.a"}

// A person wrote or copied the pod, and no webhook has seen it. The policies refuse the pod,
// because the pod would start immediately, or would wait without the right to read the Leases of
// its conditions.
//
// docs/compatibility.md: impossible/conditions-by-hand refused NotInjected
func TestPodWithForgedConditionsIsRefused(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	elsewhere := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	whole := webhook.Gated(s, app.Bare(s, "later", conditioned))
	require.Equal(t, api.GatedAfter, whole.Labels[api.GatedLabel])
	f := forge(s)
	_, err := webhook.Try(f.Space, whole.DeepCopy())
	require.NoError(t, err, "with all its parts")
	for what, take := range map[string]func(*corev1.Pod){
		"no container":           without(api.AfterContainer),
		"a container of a shell": func(pod *corev1.Pod) { initContainer(pod, api.AfterContainer).Command = []string{"sh"} },
		"a container beside":     sidecar(api.AfterContainer),
		"another condition":      args(api.AfterContainer, "after", "-conditions=once.schema=7"),
		"a longer name":          args(api.AfterContainer, "after", "-conditions=lock.ab,once.schema=7"),
		"two lists":              args(api.AfterContainer, "after", "-conditions=lock.a,once.schema=7", "-conditions=once.other=1"),
		"no argument":            args(api.AfterContainer, "after"),
		"no label":               func(pod *corev1.Pod) { delete(pod.Labels, api.GatedLabel) },
		"the label of a claim":   func(pod *corev1.Pod) { pod.Labels[api.GatedLabel] = api.Gated },
		"slots":                  func(pod *corev1.Pod) { pod.Annotations[api.SlotsAnnotation] = "lock.a" },
		"no annotation":          func(pod *corev1.Pod) { delete(pod.Annotations, api.AfterAnnotation) },
		"an opt-out":             func(pod *corev1.Pod) { pod.Annotations[api.InjectAnnotation] = "false" },
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
	_, err = webhook.Try(elsewhere, app.Bare(elsewhere, "later", conditioned))
	assert.ErrorContains(t, err, "NamespaceNotOptedIn: the pod has metaparticle.io/after")
}
