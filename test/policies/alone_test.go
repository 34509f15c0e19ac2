// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// With a forged hint, the holder would not wait for the standbys' answers. A pod keeps the hint when it
// writes anything else.
func TestEnrollAloneWritesTheHintThatAPodIsAlone(t *testing.T) {
	hint := map[string]string{api.AloneAnnotation: api.AloneTrue}
	for name, test := range map[string]struct {
		before, after map[string]string
		refused       bool
	}{
		"written": {nil, hint, true},
		"changed": {hint, map[string]string{api.AloneAnnotation: "false"}, true},
		"removed": {hint, nil, true},
		"kept":    {hint, hint, false},
	} {
		write := func(by user.Info, may may) []string {
			old := lease("true")
			old.Name = api.NextLease(old.Name)
			after := old.DeepCopy()
			old.Annotations, after.Annotations = test.before, maps.Clone(test.after)
			after.Spec.HolderIdentity = new("web-0_1")
			return refusals(t, request{
				by: by, may: may, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: old,
			})
		}
		refused := write(pod("web-0", "1"), isAgent)
		if test.refused {
			require.Len(t, refused, 1, name)
			assert.Contains(t, refused[0], "NotYours: a pod writes only an agent's annotations", name)
		} else {
			assert.Empty(t, refused, name)
		}
		assert.Empty(t, write(webhookAccount, nil), "%s by enroll", name)
	}
}
