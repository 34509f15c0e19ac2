// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

// earlier returns the parts of an archive that Metaparticle v0.1.0 made (go doc ./tools/earlier).
func earlier(t *testing.T, name string) map[string][]byte {
	t.Helper()
	archive, err := txtar.ParseFile("../tools/earlier/testdata/v0.1.0/" + name)
	require.NoError(t, err)
	parts := map[string][]byte{}
	for _, f := range archive.Files {
		parts[f.Name] = f.Data
	}
	return parts
}

// After the upgrade, enroll finds a Lease that is held, and the Role and RoleBinding that v0.1.0 of
// enroll made. Enroll adds the next Lease to the Role, and leaves the Lease as it is.
func TestUpgradedEnrollLeavesAnAlreadyHeldLeaseUnchanged(t *testing.T) {
	const slot = "singleton.deployment.biller"
	parts := earlier(t, "leases.txtar")
	lease, role, binding := new(coordinationv1.Lease), new(rbacv1.Role), new(rbacv1.RoleBinding)
	w := newWorld(t, gated("a", "till", slot))
	for name, object := range map[string]client.Object{"lease": lease, "role": role, "binding": binding} {
		require.NoError(t, json.Unmarshal(parts["enrolled-"+name+".json"], object))
		object.SetResourceVersion("")
		require.NoError(t, w.server.Create(t.Context(), object))
	}
	before := w.lease(slot)
	require.Equal(t, "a_u", *before.Spec.HolderIdentity)
	w.settle(w.process())
	assert.Equal(t, before, w.lease(slot))
	require.NotNil(t, w.role("till"))
	assert.ElementsMatch(t, withNext(slot), w.role("till").Rules[0].ResourceNames)
	assert.Equal(t, role.Annotations, w.role("till").Annotations, "the Role remembers the duration")
	assert.Equal(t, []string{RoleName("till")}, w.bindings())
}

// Enroll makes the Leases and the rights for each pod that the webhook of Metaparticle v0.1.0
// injected.
func TestUpgradedEnrollServesPodsOfTheEarlierWebhook(t *testing.T) {
	pods := 0
	for name, text := range earlier(t, "pods.txtar") {
		if !strings.HasSuffix(name, "/patched.yaml") || name == "marks-kept/patched.yaml" { // a person, and not the webhook, gated this pod
			continue
		}
		pod := new(corev1.Pod)
		require.NoError(t, yaml.Unmarshal(text, pod))
		pod.ObjectMeta = metav1.ObjectMeta{Namespace: shop, Name: "a", Labels: pod.Labels, Annotations: pod.Annotations}
		pod.Spec.ServiceAccountName = "till"
		slots := strings.Split(pod.Annotations[api.SlotsAnnotation], ",")
		w := newWorld(t, pod)
		w.settle(w.process())
		for _, slot := range slots {
			assert.NotNil(t, w.lease(slot), "%s: %s", name, slot)
			require.NotNil(t, w.role("till"), name)
			assert.Contains(t, w.role("till").Rules[0].ResourceNames, slot, name)
		}
		pods++
	}
	assert.Greater(t, pods, 40)
}
