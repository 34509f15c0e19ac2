// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// An agent reads whether its pod is being deleted by a patch that would remove the
// deletionTimestamp. The test sends the same patch with an administrator's rights, so no policy
// protects the pod.
func TestDeletionCheckNeverChangesThePod(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	pods := s.Client.CoreV1().Pods(s.Namespace)
	check := func() (*corev1.Pod, error) {
		patch := []byte(`[{"op":"remove","path":"/metadata/deletionTimestamp"}]`)
		return pods.Patch(t.Context(), "checked", types.JSONPatchType, patch, metav1.PatchOptions{}, "status")
	}
	// No scheduler has this name, so neither a scheduler nor a kubelet writes the pod's status. Without
	// a node the API server would delete the pod at once, so a finalizer keeps the pod.
	made, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "checked", Finalizers: []string{"example.com/keep"}},
		Spec: corev1.PodSpec{
			SchedulerName: "none",
			Containers:    []corev1.Container{{Name: "app", Image: "example.com/app"}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	ctx := context.WithoutCancel(t.Context()) // at the cleanup the test's own context has ended
	t.Cleanup(func() {
		_, err := pods.Patch(ctx, made.Name, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
		assert.NoError(t, err)
	})
	_, err = check()
	require.True(t, apierrors.IsInvalid(err), "%v", err)
	require.ErrorContains(t, err, "the server rejected our request due to an error in our request", "agents wait for this message")

	require.NoError(t, pods.Delete(t.Context(), made.Name, metav1.DeleteOptions{}))
	deleted, err := pods.Get(t.Context(), made.Name, metav1.GetOptions{})
	require.NoError(t, err)
	answer, err := check()
	require.NoError(t, err)
	require.NotNil(t, answer.DeletionTimestamp)
	assert.Equal(t, deleted.DeletionTimestamp, answer.DeletionTimestamp)
	after, err := pods.Get(t.Context(), made.Name, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, deleted.ObjectMeta, after.ObjectMeta)
}
