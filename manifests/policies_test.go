// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
)

func TestLeftoverPolicyRecognizesInjectedParts(t *testing.T) {
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
		for _, flag := range []string{"-slots=", "--slots=", "-slots\x00", "--slots\x00"} {
			assert.Regexp(t, expression(t, leftover, `matches\('(.x00--\?slots.*?)'\)`), "\x00run\x00"+flag+slot)
		}
	}
	for _, other := range []string{"-slots=4", "\n-slots=lock.x", "sh\x00# -slots=lock.x", "-slots=lockx", "-slots"} {
		assert.NotRegexp(t, expression(t, leftover, `matches\('(.x00--\?slots.*?)'\)`), "\x00"+other)
	}
	own := api.SingletonLease(api.Workload{Kind: "Pod", Name: "solo"}, "main")
	assert.True(t, strings.HasSuffix(own, ".pod.solo"), "a bare pod's slot must end as the policy expects: %s", own)
	long := api.SingletonLease(api.Workload{Kind: "Pod", Name: strings.Repeat("x", 253)}, "main")
	assert.Regexp(t, `\.pod\..*-[0-9a-f]{32}$`, long)
}

// expression returns the first regular expression after a place in a policy. The
// policies use two of CEL's escapes: a zero byte, and the backslash.
func expression(t *testing.T, policy, place string) *regexp.Regexp {
	t.Helper()
	found := regexp.MustCompile(place).FindStringSubmatch(policy)
	require.Len(t, found, 2)
	return regexp.MustCompile(strings.ReplaceAll(strings.ReplaceAll(found[1], `\\`, `\`), `\x00`, "\x00"))
}

// The cost of a comprehension is quadratic, and only the size of the object
// bounds the number of arguments.
func TestNoPolicyIteratesOverArguments(t *testing.T) {
	for file, text := range texts(t) {
		if strings.HasPrefix(file, "policies/") {
			assert.NotRegexp(t, `(args|command)(\.orValue\(\[\]\))?\.(exists|all|filter|map|exists_one)\(`, text, file)
		}
	}
}

func TestEnrollPolicyRecognizesSlotNames(t *testing.T) {
	policy := strings.ReplaceAll(texts(t)["policies/enroll.yaml"], `\\`, `\`)
	slot := expression(t, policy, `"'(\^.*?)'"`)
	long := strings.Repeat("x", 253)
	for _, lease := range []string{
		api.LockLease("x"), api.LockLease("1.a-b"),
		api.SingletonLease(api.Workload{Group: "apps", Kind: "Deployment", Name: "a.b"}, ""),
		api.SingletonLease(api.Workload{Group: "my-group.example.com", Kind: "Rollout", Name: "1"}, "main-2"),
		api.SingletonLease(api.Workload{Kind: "Pod", Name: long}, strings.Repeat("y", 63)),
		api.SingletonLease(api.Workload{Group: long, Kind: "Pod", Name: "x"}, ""),
	} {
		require.True(t, api.IsSlot(lease), lease)
		assert.Regexp(t, slot, lease)
	}
	for _, lease := range []string{
		"cert-manager-controller", "kube-scheduler", "metaparticle-enroll", "lock", "locks.x", "lock.", "a.lock.x",
		"singleton", "singleton-elector", "singletons.deployment.x", "singleton.x", "singleton..x",
	} {
		require.False(t, api.IsSlot(lease), lease)
		assert.NotRegexp(t, slot, lease)
	}
}

func TestImagePolicyRecognizesInjectedContainers(t *testing.T) {
	policy := texts(t)["policies/image.yaml"]
	names := fmt.Sprintf("name in ['%s', '%s', '%s']", api.AgentContainer, api.TurnContainer, api.WaitContainer)
	assert.Equal(t, 2, strings.Count(policy, names), "both the condition and the validation must contain the names")
}

func TestCarriedPolicyMatchesTheWorkloadWebhook(t *testing.T) {
	policies := all[*admissionv1.ValidatingAdmissionPolicy](t)
	i := slices.IndexFunc(policies, func(p *admissionv1.ValidatingAdmissionPolicy) bool { return p.Name == "metaparticle-carried" })
	require.GreaterOrEqual(t, i, 0)
	spec := policies[i].Spec
	webhooks := all[*admissionv1.MutatingWebhookConfiguration](t)[0].Webhooks
	j := slices.IndexFunc(webhooks, func(w admissionv1.MutatingWebhook) bool { return *w.FailurePolicy == admissionv1.Ignore })
	require.GreaterOrEqual(t, j, 0)
	assert.Equal(t, webhooks[j].NamespaceSelector, spec.MatchConstraints.NamespaceSelector)
	assert.Equal(t, webhooks[j].ObjectSelector, spec.MatchConstraints.ObjectSelector)
	var rules []admissionv1.RuleWithOperations
	for _, rule := range spec.MatchConstraints.ResourceRules {
		rules = append(rules, rule.RuleWithOperations)
	}
	assert.Equal(t, webhooks[j].Rules, rules)
	for _, condition := range webhooks[j].MatchConditions {
		if condition.Name != "annotated" {
			assert.Contains(t, spec.MatchConditions, admissionv1.MatchCondition(condition), "policy and webhook must skip the same objects")
		}
	}
	for _, list := range regexp.MustCompile(`k in \[(.*?)\]`).FindAllStringSubmatch(texts(t)["policies/carried.yaml"], -1) {
		assert.Equal(t, "'"+api.SlotsAnnotation+"', '"+api.WorkloadAnnotation+"'", list[1])
	}
	for _, key := range []string{api.SlotsAnnotation, api.WorkloadAnnotation} {
		assert.False(t, api.Carried(key), key)
	}
}

func TestEnrollPolicyAllowsAgentRights(t *testing.T) {
	policy := texts(t)["policies/enroll.yaml"]
	for _, given := range enroll.AgentRules("lock.x") {
		require.Len(t, given.APIGroups, 1)
		require.Len(t, given.Resources, 1)
		verbs := "r.verbs == ['" + strings.Join(given.Verbs, "', '") + "']"
		if len(given.ResourceNames) > 0 {
			verbs = "r.?resourceNames.orValue([]).size() > 0 && r.resourceNames.all(n, n.matches(variables.slot)) && r.verbs.all(v, v in ['" + strings.Join(given.Verbs, "', '") + "'])"
		}
		assert.Regexp(t, regexp.QuoteMeta(fmt.Sprintf("r.?apiGroups.orValue([]) == ['%s'] && r.?resources.orValue([]) == ['%s'] &&",
			given.APIGroups[0], given.Resources[0]))+`\s+`+regexp.QuoteMeta(verbs), policy)
	}
}

func TestLeaseAboveTheLongestDurationIsRefused(t *testing.T) {
	assert.Contains(t, texts(t)["policies/lease.yaml"], fmt.Sprintf("orValue(0) > %d\n", int(api.MaxLeaseDuration.Seconds())))
}
