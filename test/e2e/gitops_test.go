// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestDryRunHasNoSideEffect(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	manifest := s.manifest(s.deployment(singleton("wish")))
	out := s.mustKubectl(manifest, "apply", "--dry-run=server", "-f", "-", "-o", "yaml")
	assert.Contains(t, out, "template:\n    metadata:\n      annotations:\n        "+api.LeaseDurationAnnotation, "it shows what would be")
	_, err := s.try(s.bare("wish", claims))
	require.NoError(t, err)
	s.never(handover/2, "a Lease, a Role or an Event", func() bool {
		leases, err := s.client.CoordinationV1().Leases(s.name).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		roles, err := s.client.RbacV1().Roles(s.name).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		events, err := s.events.List(everything)
		require.NoError(t, err)
		return len(leases.Items)+len(roles.Items)+len(events) > 0
	})
}

// What GitOps tools do all day: apply what is applied, and look for drift.
func TestAppliedAgainNothingDrifts(t *testing.T) {
	t.Parallel()
	for name, how := range map[string][]string{"server-side": {"--server-side"}, "client-side": nil} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			a := lasting("steady")
			manifest := s.manifest(s.deployment(a))
			apply := append([]string{"apply", "-f", "-"}, how...)
			s.mustKubectl(manifest, apply...)
			s.mustKubectl("", "rollout", "status", "deployment/steady", rolloutTimeout)
			before, err := s.client.AppsV1().Deployments(s.name).Get(t.Context(), a.name, metav1.GetOptions{})
			require.NoError(t, err)

			out := s.mustKubectl(manifest, apply...)
			assert.NotContains(t, out, "Warning")
			out, err = s.kubectl(manifest, append([]string{"diff", "-f", "-"}, how...)...)
			assert.NoError(t, err, "kubectl diff: %s", out)
			after, err := s.client.AppsV1().Deployments(s.name).Get(t.Context(), a.name, metav1.GetOptions{})
			require.NoError(t, err)
			assert.Equal(t, before.Generation, after.Generation)
			assert.Equal(t, before.Spec, after.Spec)
			sets, err := s.client.AppsV1().ReplicaSets(s.name).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			assert.Len(t, sets.Items, 1, "no new ReplicaSet")

			// The annotation taken out of the file is taken off the template too.
			delete(a.annotations, api.SingletonAnnotation)
			delete(a.annotations, api.LeaseDurationAnnotation)
			s.mustKubectl(s.manifest(s.deployment(a)), apply...)
			after, err = s.client.AppsV1().Deployments(s.name).Get(t.Context(), a.name, metav1.GetOptions{})
			require.NoError(t, err)
			assert.NotContains(t, after.Spec.Template.Annotations, api.SingletonAnnotation)
		})
	}
}
