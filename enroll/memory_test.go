// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
			role.Annotations[leasesAnnotation] = text
			require.NoError(t, w.server.Update(t.Context(), role))
			w.vanish("lock.x")
			w.named = map[string]bool{} // otherwise the world fails the test before the assertions below
			assert.NotPanics(t, func() { w.settle(r) })
			require.NotNil(t, w.lease("lock.x"))
			assert.Equal(t, Unknown, holder(w.lease("lock.x")), "enroll freed the Lease while a_1 may still run")
		})
	}
}

// A user who may write Roles could otherwise fill the memory of enroll, with little text for each Lease.
func TestForgedMemoryOfARoleTakesLittleMemory(t *testing.T) {
	for form, most := range map[string]int{`"%04x":{}`: 26_000, `"%04x":0`: 26_000, `"%04x":{"seconds":1,"uid":""}`: 8_000, `"%04x":{"seconds":1},"x%[1]x":{},"y%[1]x":{}`: 5_000} {
		var names []string
		for i := range most {
			names = append(names, fmt.Sprintf(form, i))
		}
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Name: "metaparticle:till", Annotations: map[string]string{leasesAnnotation: "{" + strings.Join(names, ",") + "}"},
		}}
		require.Less(t, len(role.Annotations[leasesAnnotation]), 256<<10+1, form)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		roles := rolesOf([]rbacv1.Role{*role})
		runtime.ReadMemStats(&after)
		assert.Empty(t, roles.longest, form)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<10), form)
		kept, err := strip(role.DeepCopy())
		require.NoError(t, err)
		assert.Empty(t, kept.(*rbacv1.Role).Annotations, form)
	}
}

func TestMemoryOfAFullRoleStaysWhole(t *testing.T) {
	memories := map[string]memory{}
	for i := range 2470 {
		memories[fmt.Sprintf("lock.%d", i)] = memory{Seconds: 30, UID: "0a1b2c3d-1111-2222-3333-444455556666"}
	}
	full := &agentRole{role: &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "metaparticle:till"}}, memories: memories}
	require.NoError(t, full.remember())
	kept, err := strip(full.role.DeepCopy())
	require.NoError(t, err)
	assert.Equal(t, memories, remembered(kept.(*rbacv1.Role)))
}
