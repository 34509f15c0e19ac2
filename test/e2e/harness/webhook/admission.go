// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"strings"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// DryRun makes the API server admit an object as usual, but store nothing.
var DryRun = []string{metav1.DryRunAll}

// Try proposes a pod to the API server by dry run, and returns the pod that would be stored.
func Try(s *space.Space, pod *corev1.Pod) (*corev1.Pod, error) {
	return s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// Gated proposes a pod until the API server admits the pod. The result has all parts of the pod's
// gate, and can be created as if a person had written it.
func Gated(s *space.Space, pod *corev1.Pod) *corev1.Pod {
	s.Helper()
	var gated *corev1.Pod
	var err error
	s.Within(space.StartTimeout, func() bool {
		gated, err = Try(s, pod.DeepCopy())
		return err == nil
	})
	require.NoError(s, err)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: gated.Name, Labels: gated.Labels, Annotations: gated.Annotations, OwnerReferences: gated.OwnerReferences},
		Spec:       gated.Spec,
	}
}

// Refused proposes a pod and requires a refusal with a message. If a busy API server
// fails to call the webhook, Refused tries again.
func Refused(s *space.Space, pod *corev1.Pod, message string) {
	s.Helper()
	var err error
	s.Within(space.Soon, func() bool {
		_, err = Try(s, pod)
		return err == nil || apierrors.IsForbidden(err) || strings.Contains(err.Error(), message)
	})
	if assert.Error(s, err) {
		assert.True(s, apierrors.IsForbidden(err) || apierrors.IsInternalError(err), "%v", err)
		assert.ErrorContains(s, err, message)
	}
}

// Claims are the annotations of a singleton.
var Claims = map[string]string{api.SingletonAnnotation: "true"}

// AwaitGating proposes a pod by dry run again and again, until the webhook gates the pod.
func AwaitGating(s *space.Space) {
	require.Eventually(s, func() bool {
		pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(context.Background(), app.Bare(s, "probe", Claims),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && pod.Labels[api.GatedLabel] == api.Gated
	}, space.StartTimeout, 10*space.CheckInterval)
}
