// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

func TestCompletionProposesCommandsAndOutputFormats(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	commands := slices.Sorted(maps.Keys(command))
	for line, proposed := range map[string]string{
		"":                          "check\nconsole\nexplain\nforget\ninject\npause\nrecover\nresume\nstatus\nversion\nyield\n:4\n",
		"re":                        "recover\nresume\n:4\n",
		"nothing":                   ":4\n",
		"status -o j":               "json\n:4\n",
		"inject -o ":                "yaml\ndiff\n:4\n",
		"inject -f ":                ":0\n",
		"inject --registry-ca ":     ":0\n",
		"inject --registry-mirror ": ":4\n",
		"status -n ":                ":4\n",
		"status lock/":              ":4\n",
		"yield --to ":               ":4\n",
		"forget ":                   ":4\n",
		"recover -n ":               ":4\n",
	} {
		var out bytes.Buffer
		complete(t.Context(), commands, strings.Split(line, " "), &out)
		assert.Equal(t, proposed, out.String(), "%q", line)
	}
}

// For each kind with the scope "namespace", a person can name a claim as KIND/NAME, and the
// completion proposes this text.
func TestCommandsAcceptClaimsOfEachNamespaceScopedKind(t *testing.T) {
	for _, kind := range api.Kinds() {
		slots := api.Claim{Kind: kind, Name: "a.b", Size: 12}.Slots(api.Workload{})
		if kind.Scope != api.ScopeNamespace || len(slots) == 0 {
			continue
		}
		name := kind.Name() + "/a.b"
		assert.Contains(t, usage, " "+kind.Name()+"/NAME")
		var there []client.Object
		for _, slot := range slots {
			assert.Equal(t, name, targetOf(slot))
			there = append(there, slotLease(slot, "", nil))
		}
		s, err := findSlots(t.Context(), cluster{WithWatch: newByHand(there...)}, "shop", []string{name})
		require.NoError(t, err)
		assert.Equal(t, slots, s.slots)
	}
}

func TestCompletionProposesArgumentsThatNameSlots(t *testing.T) {
	deployment := api.Workload{Group: "apps", Kind: "Deployment", Name: "till.v2"}
	b := newByHand(slotLease(api.LockLease("a.b"), "", nil), slotLease(api.ElectionLease("main"), "", nil),
		slotLease(api.OnceLease("schema"), "", nil), slotLease(api.StartLockLease("db"), "", nil),
		slotLease(api.SemaphoreLease("pool", 0), "", nil), slotLease(api.SemaphoreLease("pool", 1), "", nil),
		slotLease(api.SingletonLease(deployment, ""), "", nil), slotLease(api.ShardLease(api.ShardGroup(deployment), 3), "", nil),
		slotLease(api.SingletonLease(api.Workload{Group: "argoproj.io", Kind: "Rollout", Name: "x"}, ""), "", nil),
		slotLease(api.Barrier{Name: "warm.a", Size: 1}.Leases("0a-1")[0], "", nil), slotLease("next.lock.a", "", nil), leaseOf("foreign"),
		slotLease(api.RWLockLease("catalog", 3), "", nil), slotLease(api.IntentLease("catalog"), "", nil))
	proposed := cluster{WithWatch: b}.targets(t.Context(), "shop")
	assert.Equal(t, []string{
		"barrier/warm.a", "deployment/till.v2", "election/main", "lock/a.b", "once/schema", "rwlock/catalog", "semaphore/pool", "start-lock/db",
	}, proposed)
	for _, target := range proposed {
		if target == "deployment/till.v2" {
			continue // the fake cluster has no Deployment
		}
		s, err := findSlots(t.Context(), cluster{WithWatch: b}, "shop", []string{target})
		require.NoError(t, err, target)
		assert.NotEmpty(t, s.slots, target)
	}
}

func TestCheckCommandPrintsFindingsAndRemedies(t *testing.T) {
	findings := []check.Finding{
		{Check: "nodes", Result: check.OK, Says: "3 of 3 nodes"}, {Check: "webhook", Result: check.Warning, Says: "one replica", Do: "scale it"},
	}
	for output, shown := range map[string]string{
		"":     "ok       nodes    3 of 3 nodes\nwarning  webhook  one replica\n                  → scale it\n1 ok, 1 warning, 0 failed, 0 unknown\n",
		"json": "{\n  \"checks\": [\n    {\n      \"check\": \"nodes\",\n      \"result\": \"ok\",\n      \"says\": \"3 of 3 nodes\"\n    },\n    {\n      \"check\": \"webhook\",\n      \"result\": \"warning\",\n      \"says\": \"one replica\",\n      \"do\": \"scale it\"\n    }\n  ]\n}\n",
		"yaml": "checks:\n- check: nodes\n  result: ok\n  says: 3 of 3 nodes\n- check: webhook\n  do: scale it\n  result: warning\n  says: one replica\n",
	} {
		var out bytes.Buffer
		code, err := tell(&out, findings, output)
		require.NoError(t, err)
		assert.Equal(t, exitOK, code, "a warning is no failure")
		assert.Equal(t, shown, out.String())
	}
	for _, c := range []struct {
		result check.Result
		more   []check.Finding
		code   int
	}{
		{check.Failed, nil, exitRefused}, {check.Unknown, nil, exitError}, {check.Unknown, []check.Finding{{Result: check.Failed}}, exitRefused},
	} {
		findings[1].Result = c.result
		for _, output := range []string{"", "json"} {
			code, err := tell(new(bytes.Buffer), append(findings, c.more...), output)
			require.NoError(t, err)
			assert.Equal(t, c.code, code, c)
		}
	}
}
