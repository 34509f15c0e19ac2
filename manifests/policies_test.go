// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestLeftoverPolicyLooksForWhatIsInjected(t *testing.T) {
	leftover := texts(t)["policies/leftover.yaml"]
	for _, name := range []string{
		"'" + api.AgentBinary + "'", "g.conditionType == '" + api.ReadyCondition + "'", "v.name == '" + api.Volume + "'", "m.name == '" + api.Volume + "'",
		"[?'" + api.GatedLabel + "'].orValue('') == '" + api.Gated + "'", "[?'" + api.SlotsAnnotation + "'].orValue('') != ''",
	} {
		assert.Contains(t, leftover, name)
	}
	for _, slot := range []string{
		api.LockLease("x"), api.SingletonLease(api.Workload{Kind: "Pod", Name: "x"}, ""), api.SingletonLease(api.Workload{Kind: "Pod", Name: "x"}, "main"),
	} {
		prefix := regexp.MustCompile(`^[a-z]+[.-]`).FindString(slot)
		assert.Contains(t, leftover, "a.startsWith('-slots="+prefix+"')", slot)
	}
	own := api.SingletonLease(api.Workload{Kind: "Pod", Name: "solo"}, "main")
	assert.True(t, strings.HasSuffix(own, ".pod.solo"), "a bare pod's slot, as the policy knows it: %s", own)
	long := api.SingletonLease(api.Workload{Kind: "Pod", Name: strings.Repeat("x", 253)}, "main")
	assert.Regexp(t, `\.pod\..*-[0-9a-f]{32}$`, long)
}
