// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestEarlierVersionWritesLeaseWithUnknownHolder writes a Lease whose holder is unknown, as enroll of v0.1.0 creates this Lease.
func TestEarlierVersionWritesLeaseWithUnknownHolder(t *testing.T) {
	w := newWorld(t)
	l, err := store{client: w.server}.createLease(t.Context(), shop, "singleton.deployment.biller", 30*time.Second, w.now)
	require.NoError(t, err)
	l.UID, l.ResourceVersion = "uid-1", "7"
	l.APIVersion, l.Kind = "coordination.k8s.io/v1", "Lease"
	write(t, "lease-unknown", l)
}

// TestEarlierVersionWritesObjectsOfEnroll writes the objects of enroll for a gated pod that holds its slot.
func TestEarlierVersionWritesObjectsOfEnroll(t *testing.T) {
	w := newWorld(t, gated("a", "till", "singleton.deployment.biller"))
	r := w.process()
	w.settle(r)
	w.holds("singleton.deployment.biller", "a_u")
	w.settle(r)
	l := w.lease("singleton.deployment.biller")
	l.APIVersion, l.Kind = "coordination.k8s.io/v1", "Lease"
	write(t, "enrolled-lease", l)
	role := w.role("till")
	role.APIVersion, role.Kind = "rbac.authorization.k8s.io/v1", "Role"
	write(t, "enrolled-role", role)
	binding := new(rbacv1.RoleBinding)
	require.NoError(t, w.server.Get(t.Context(), types.NamespacedName{Namespace: shop, Name: role.Name}, binding))
	binding.APIVersion, binding.Kind = "rbac.authorization.k8s.io/v1", "RoleBinding"
	write(t, "enrolled-binding", binding)
}

func write(t *testing.T, name string, object client.Object) {
	t.Helper()
	text, err := json.MarshalIndent(object, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("EARLIER"), name+".json"), append(text, '\n'), 0o644))
}
