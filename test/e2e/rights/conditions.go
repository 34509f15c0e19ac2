// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

func TestPodWithConditionsMayOnlyReadAwaitedLeases(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	for _, name := range []string{"lock.a", "lock.b"} {
		_, err := s.Client.CoordinationV1().Leases(s.Namespace).
			Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	pod, err := s.Client.CoreV1().Pods(s.Namespace).
		Create(t.Context(), app.Bare(s, "later", map[string]string{api.AfterAnnotation: "lock.a"}), metav1.CreateOptions{})
	require.NoError(t, err)
	client := as(s, pod)
	get := func(ctx context.Context, lease string) error {
		_, err := client.CoordinationV1().Leases(s.Namespace).Get(ctx, lease, metav1.GetOptions{})
		return err
	}
	s.Await(space.StartTimeout, "the pod may read", func() bool { return get(t.Context(), "lock.a") == nil })
	report := func(about string, uid types.UID) error {
		_, err := client.CoreV1().Events(s.Namespace).Create(t.Context(), &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "later."},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.Namespace, Name: about, UID: uid},
			Reason:         "WaitsForCondition", Source: corev1.EventSource{Component: "metaparticle-agent"}, Type: corev1.EventTypeNormal,
		}, metav1.CreateOptions{})
		return err
	}
	assert.NoError(t, report(pod.Name, pod.UID))
	_, patched := client.CoreV1().Pods(s.Namespace).Patch(t.Context(), pod.Name, types.StrategicMergePatchType,
		[]byte(`{"status":{"message":"x"}}`), metav1.PatchOptions{}, "status")
	for what, err := range map[string]error{
		"read another Lease":              get(t.Context(), "lock.b"),
		"write the Lease":                 write(t.Context(), client, s.Namespace, "lock.a", api.Identity(pod.Name, string(pod.UID))),
		"write its own status":            patched,
		"report Events about another pod": report("other", "1"),
	} {
		assert.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
}
