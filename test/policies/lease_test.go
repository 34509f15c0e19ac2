// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// BenchmarkPoliciesOfARelease measures what all policies together cost the API server in one write
// of a Lease.
func BenchmarkPoliciesOfARelease(b *testing.B) {
	held := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: "singleton.deployment.web", Namespace: shop, Labels: map[string]string{api.ManagedLabel: "true"},
			Annotations: map[string]string{
				api.HoldAnnotation: "3a9cf1d2", api.TokenAnnotation: "42", api.AddressAnnotation: "10.244.1.17",
				api.BootAnnotation: "9f1cdd6c-9e26-4c3f-9a39-0a2f6c1f1a0b", api.ServingAnnotation: "2026-11-26T20:00:00.123456Z",
			},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("web-0_0b3b7a0e-1111-2222-3333-444455556666"), LeaseDurationSeconds: new(int32(30)), LeaseTransitions: new(int32(42)),
		},
	}
	released := held.DeepCopy()
	released.Spec.HolderIdentity = new("")
	delete(released.Annotations, api.ServingAnnotation)
	write := request{
		by: &user.DefaultInfo{Name: "system:serviceaccount:shop:web", Extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {"web-0"}, "authentication.kubernetes.io/pod-uid": {"0b3b7a0e-1111-2222-3333-444455556666"},
		}},
		may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: released, old: held,
	}
	for b.Loop() {
		require.Empty(b, refusals(b, write))
	}
}
