// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

func TestKubectlDryRunHasNoSideEffect(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	manifest := kubectl.Manifest(s, app.Deployment(s, app.Singleton("wish")))
	out := kubectl.Must(s, manifest, "apply", "--dry-run=server", "-f", "-", "-o", "yaml")
	assert.Contains(t, out, "template:\n    metadata:\n      annotations:\n        "+api.LeaseDurationAnnotation, "it shows what would be")
	_, err := webhook.Try(s, app.Bare(s, "wish", webhook.Claims))
	require.NoError(t, err)
	s.Never(lease.Handover/2, "a Lease, a Role or an Event", func() bool {
		leases, err := s.Client.CoordinationV1().Leases(s.Namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		roles, err := s.Client.RbacV1().Roles(s.Namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return len(leases.Items)+len(roles.Items)+len(s.Events()) > 0
	})
}

// GitOps tools apply the same file all day, and report each difference between file and
// cluster.
func TestRepeatedKubectlApplyChangesNothing(t *testing.T) {
	t.Parallel()
	for name, how := range map[string][]string{"server-side": {"--server-side"}, "client-side": nil} {
		t.Run(name, func(t *testing.T) {
			s := space.New(t)
			a := app.Lasting("steady")
			manifest := kubectl.Manifest(s, app.Deployment(s, a))
			apply := append([]string{"apply", "-f", "-"}, how...)
			kubectl.Must(s, manifest, apply...)
			kubectl.Must(s, "", "rollout", "status", "deployment/steady", kubectl.RolloutTimeout)
			before, err := s.Client.AppsV1().Deployments(s.Namespace).Get(t.Context(), a.Name, metav1.GetOptions{})
			require.NoError(t, err)

			out := kubectl.Must(s, manifest, apply...)
			assert.NotContains(t, out, "Warning")
			out, err = kubectl.Run(s, manifest, append([]string{"diff", "-f", "-"}, how...)...)
			assert.NoError(t, err, "kubectl diff: %s", out)
			after, err := s.Client.AppsV1().Deployments(s.Namespace).Get(t.Context(), a.Name, metav1.GetOptions{})
			require.NoError(t, err)
			assert.Equal(t, before.Generation, after.Generation)
			assert.Equal(t, before.Spec, after.Spec)
			sets, err := s.Client.AppsV1().ReplicaSets(s.Namespace).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			assert.Len(t, sets.Items, 1, "no new ReplicaSet")

			// The rollout is paused, so that no ungated pod starts beside the gated one.
			kubectl.Must(s, "", "rollout", "pause", "deployment/steady")
			// After the user removes the annotation from the file, the pod template loses
			// the annotation, too.
			delete(a.Annotations, api.SingletonAnnotation)
			delete(a.Annotations, api.LeaseDurationAnnotation)
			kubectl.Must(s, kubectl.Manifest(s, app.Deployment(s, a)), apply...)
			after, err = s.Client.AppsV1().Deployments(s.Namespace).Get(t.Context(), a.Name, metav1.GetOptions{})
			require.NoError(t, err)
			assert.NotContains(t, after.Spec.Template.Annotations, api.SingletonAnnotation)
		})
	}
}
