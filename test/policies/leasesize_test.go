// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// A user who may patch Leases could add 32,000 annotations. Then each renewal took an API server three
// seconds, and was refused in the end.
func TestManyAnnotationsOfALeaseDelayNoRenewal(t *testing.T) {
	write := func(annotations int, edit func(*coordinationv1.Lease)) []string {
		old := lease("true")
		old.Annotations = map[string]string{api.HoldAnnotation: "h1"}
		for i := range annotations - 1 {
			old.Annotations[fmt.Sprint("x", i)] = ""
		}
		l := old.DeepCopy()
		edit(l)
		return refusals(t, request{
			by: pod("web-0", "1"), may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
			in: namespace(shop, true), object: l, old: old,
		})
	}
	renew := func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(29)) }
	acquire := func(l *coordinationv1.Lease) { l.Annotations[api.HoldAnnotation] = "h2" }
	assert.Empty(t, write(2000, acquire))
	assert.Empty(t, write(1, renew))
	// Other load of the machine may delay one write, but not each of five.
	fastest := func(edit func(*coordinationv1.Lease)) (refused []string) {
		took := time.Hour
		for range 5 {
			began := time.Now()
			refused = write(32_000, edit)
			took = min(took, time.Since(began))
		}
		assert.Less(t, took, time.Second)
		return refused
	}
	assert.Empty(t, fastest(renew))
	refused := fastest(acquire)
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "none into a Lease with more than 2000 annotations")
}
