// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

// A tenant gives a Lease with enroll's label a finalizer. The API server refuses each request after
// the end of the removal's time, as a real API server does.
func TestUninstallationErrorNamesOnlyTheStuckLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := func(namespace, name string, finalizers ...string) *coordinationv1.Lease {
			return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{api.ManagedLabel: "true"}, Finalizers: finalizers,
			}}
		}
		c := cluster(interceptor.Funcs{
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return c.Delete(ctx, o, options...)
			},
		}, lease("attacker", "lock.a", "example.com/never"), lease("shop", "lock.b"), lease("shop", "lock.c"))
		deleted, err := RemoveMade(t.Context(), c, new(strings.Builder))
		require.ErrorContains(t, err, "delete lease lock.a: still there")
		assert.ErrorContains(t, err, "attacker", "a person must find the Lease")
		assert.NotContains(t, err.Error(), "lock.b")
		assert.NotContains(t, err.Error(), "lock.c")
		assert.Equal(t, 2, deleted)
	})
}

// A tenant can make thousands of Leases with finalizers.
func TestUninstallationErrorNamesFewStuckLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stuck []client.Object
		for range 6 {
			stuck = append(stuck, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: "attacker", Name: "lock.a" + strings.Repeat("a", len(stuck)), Labels: map[string]string{api.ManagedLabel: "true"},
				Finalizers: []string{"example.com/never"},
			}})
		}
		deleted, err := RemoveMade(t.Context(), cluster(interceptor.Funcs{}, stuck...), new(strings.Builder))
		require.ErrorContains(t, err, "delete 1 more")
		assert.Equal(t, 5, strings.Count(err.Error(), "still there"))
		assert.Zero(t, deleted)
	})
}
