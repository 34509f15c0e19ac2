// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// A forged offer could name a successor that never offered, or tell the leaving holder that another
// standby is prepared.
func TestAgentForgesNoOfferOfAnotherPod(t *testing.T) {
	write := func(before, after string) []string {
		old := lease("true")
		old.Annotations = map[string]string{api.OffersAnnotation: before}
		l := old.DeepCopy()
		l.Annotations[api.OffersAnnotation] = after
		return refusals(t, request{
			by: pod("web-0", "1"), may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
			in: namespace(shop, true), object: l, old: old,
		})
	}
	for _, space := range []string{" ", "\t", "\n", "\r", "\v", "\f", "\u0085", "\u00a0", "\u2003", "\u3000"} {
		for what, after := range map[string]string{
			"instead of its own": "h.1" + space + "=web-1_2", "after its own": "h.1 web-0_1" + space + "=web-1_2",
			"in a long word": "h.1" + space + "=web-1_2" + space + "+web-2_3", "before its own": "h.1" + space + "+web-1_2 =web-0_1",
		} {
			refused := write("h.1 +web-1_2", after)
			if space == " " && what == "before its own" {
				assert.Empty(t, refused, "a kept offer")
				continue
			}
			require.Len(t, refused, 1, "%q", after)
			assert.Contains(t, refused[0], "NotYourIdentity: a pod offers only in its own name", "%q", after)
		}
	}
	for _, after := range []string{"h.1 +web-0_1", "h.1 +web-1_2 web-0_1", "h.1 +web-1_2 =web-0_1", "h.1", "", "h.2 +web-0_1", "00ff00ff00ff00ff.1234 =web-0_1",
		"00ff00ff00ff00ff" + api.Awaits + " =web-0_1", "00ff00ff00ff00ff.1234" + api.Awaits + " +web-0_1"} {
		assert.Empty(t, write("h.1 +web-1_2", after), "%q", after)
	}
	for _, after := range []string{"h.1 +web-0_1 web-0_1", "h.1 +web-0_1 =web-0_1", "h.1 web-0_1 web-0_1", "h.2 =web-0_1 web-0_1 +web-0_1"} {
		assert.Len(t, write("h.1 +web-1_2", after), 1, "two offers of one pod")
	}
	assert.Empty(t, write("h.1\t=web-1_2", "h.1\t=web-1_2"), "another's text that stays")
}
