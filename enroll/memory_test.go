// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A Role whose rules name a Lease remembers the Lease, whatever the Role's annotation says.
func TestOverwrittenRoleAnnotationDoesNotFreeRecreatedLease(t *testing.T) {
	for _, text := range []string{"null", "{}", `{"lock.y":{"seconds":30,"uid":""}}`} {
		t.Run(text, func(t *testing.T) {
			w := newWorld(t, gated("a", "till", "lock.x"))
			r := w.process()
			w.settle(r)
			w.holds("lock.x", "a_1")
			role := w.role("till")
			role.Annotations[LeasesAnnotation] = text
			require.NoError(t, w.server.Update(t.Context(), role))
			w.vanish("lock.x")
			w.named = map[string]bool{} // otherwise the world fails the test before the assertions below
			assert.NotPanics(t, func() { w.settle(r) })
			require.NotNil(t, w.lease("lock.x"))
			assert.Equal(t, Unknown, holder(w.lease("lock.x")), "enroll freed the Lease while a_1 may still run")
		})
	}
}
