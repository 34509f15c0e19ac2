// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// A GitOps tool applies a namespace and its Deployment again and again, while a person deletes the
// namespace. The old application ignores SIGTERM, so the application still runs when the API server
// has deleted the application's Lease. The cleanup of the space checks the overlaps and tokens of
// all processes, before and after the deletion.
func TestSlotStaysExclusiveInARecreatedNamespace(t *testing.T) {
	t.Parallel()
	a := app.Lasting("mirrored")
	a.Args, a.Grace, a.Replicas = []string{"-ignore-term"}, 10, 2
	h := holder.Deploy(t, a, "it needs the record")
	slot := lease.OfDeployment(a.Name)
	namespaces := cluster.Client.CoreV1().Namespaces()
	old, err := namespaces.Get(t.Context(), h.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	created, uid := old.DeepCopy(), h.Lease(slot).UID
	created.ObjectMeta = metav1.ObjectMeta{Name: old.Name, Labels: old.Labels}

	require.NoError(t, namespaces.Delete(t.Context(), old.Name, metav1.DeleteOptions{}))
	h.Await(space.StartTimeout, "the namespace is created again", func() bool {
		_, err := namespaces.Create(t.Context(), created, metav1.CreateOptions{})
		require.True(t, err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err), "%v", err)
		return err == nil
	})
	app.Create(h.Space, a)
	h.Await(space.StartTimeout, "the application runs again", func() bool { return app.After(h.Space, a, h.Before) != nil })
	assert.Equal(t, api.Gated, h.AwaitHolder(slot).Labels[api.GatedLabel])
	assert.NotEqual(t, uid, h.Lease(slot).UID, "the new namespace has a Lease of its own")
}
