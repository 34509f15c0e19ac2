// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
)

func TestPolicyDetectsInjectedPartsInCopiedPods(t *testing.T) {
	leftover := texts(t)["policies/leftover.yaml"]
	for _, name := range []string{
		"'" + api.ShimProgram + "'", "g.conditionType == '" + api.ReadyCondition + "'", "v.name == '" + api.Volume + "'", "m.name == '" + api.Volume + "'",
		"[?'" + api.GatedLabel + "'].orValue('') == '" + api.Gated + "'", "[?'" + api.SlotsAnnotation + "'].orValue('') != ''",
	} {
		assert.Contains(t, leftover, name)
	}
	shown := expression(t, leftover, `matches\('(.x00--\?slots.*?)'\)`)
	unknown := map[string]string{}
	for _, slot := range slots(t) {
		for _, flag := range []string{"-slots=", "--slots=", "-slots\x00", "--slots\x00"} {
			if text := "\x00run\x00" + flag + slot.lease; !shown.MatchString(text) {
				unknown[slot.kind.Name()] = strconv.Quote(text)
			}
		}
	}
	assert.Empty(t, unknown, "leftover.yaml must match the argument -slots of each kind, here with an example")
	for _, other := range []string{"-slots=4", "\n-slots=lock.x", "sh\x00# -slots=lock.x", "-slots=lockx", "-slots"} {
		assert.NotRegexp(t, shown, "\x00"+other)
	}
	args := api.DefaultRunArgs()
	args.Slots = []string{api.LockLease("x"), api.LockLease("y")}
	assert.Regexp(t, shown, "\x00"+strings.Join(args.Args(), "\x00"), "the policy must match the arguments that the webhook writes")
}

// A pod without a controller may compete for the slots of its namespace, and for its own
// singleton, because the pod itself is its workload.
func TestLeftoverPolicyAllowsBarePodsOnlyClaimableSlots(t *testing.T) {
	found := regexp.MustCompile(`(?s)- name: own\n\s+expression: >-\n\s+'(.*?)' \+ object\.metadata\.name\.replace\('\.', '\\\\\.'\) \+ '(.*?)'\n`).
		FindStringSubmatch(texts(t)["policies/leftover.yaml"])
	require.Len(t, found, 3)
	own := func(pod string) *regexp.Regexp {
		return regexp.MustCompile("^" + strings.ReplaceAll(found[1]+regexp.QuoteMeta(pod)+found[2], `\\`, `\`) + "$")
	}
	unknown := map[string]string{}
	for _, slot := range slots(t) {
		if api.ScopeOf(slot.lease) == api.ScopeNamespace {
			if !own("solo.1").MatchString(slot.lease) {
				unknown[slot.kind.Name()] = slot.lease
			}
			continue
		}
		if slot.kind == api.Shards {
			assert.NotRegexp(t, own(slot.of.Name), slot.lease, "a pod without a controller has no shard")
			continue
		}
		if slot.of.Kind == "Pod" && slot.of.Group == "" {
			assert.Regexp(t, own(slot.of.Name), slot.lease, "a pod's own slot must match, also a shortened one")
		}
		if len(slot.lease) < 200 {
			assert.NotRegexp(t, own("other"), slot.lease)
		}
	}
	assert.Empty(t, unknown, "leftover.yaml, variable own, must match the Leases of each kind, here with an example")
}

// The policies recognize only arguments of a bounded length. Even the arguments of the longest
// claims must not exceed that bound.
func TestPoliciesRecognizeLocalAPIAgentsDespiteLongArguments(t *testing.T) {
	gate, leftover := texts(t)["policies/gate.yaml"], texts(t)["policies/leftover.yaml"]
	shown := expression(t, gate, `matches\('(\^api.*?)'\)`)
	long := strings.Repeat("x", 247)
	var longest []string
	for i := range 8 {
		longest = append(longest, fmt.Sprintf("lock/%s%d", long, i))
	}
	for _, value := range []string{"lock/a", "election/main", "semaphore/pool=3", "rwlock/catalog=8", "barrier/warm=5", "variable/hits", strings.Join(longest, ",")} {
		request, err := api.Parse(map[string]string{api.LocalAnnotation: value})
		require.NoError(t, err)
		args := api.DefaultLocalArgs()
		args.Claims, args.LeaseDuration, args.OwnKernel = request.Claimed, api.MaxLeaseDuration, true
		args.Port, args.Socket = 0, api.LocalSocket
		if len(api.BarriersOf(request.Claimed)) > 0 {
			args.Run = "0b1c2d3e-0000-4000-8000-0123456789ab"
		}
		words := args.Args()
		text := strings.Join(words, "\x00")
		assert.Regexp(t, shown, text)
		leashed := args
		leashed.Containers = []string{"app", "side-car-2"}
		assert.Regexp(t, shown, strings.Join(leashed.Args(), "\x00"))
		assert.NotRegexp(t, shown, text+"\x00-claims=lock/other")
		assert.NotRegexp(t, shown, strings.Replace(text, "=0", "=80", 1))
		assert.NotRegexp(t, shown, strings.Replace(text, api.LocalSocket, "/node/api.sock", 1))
		assert.NotRegexp(t, shown, "run\x00"+text)
		assert.LessOrEqual(t, len(text), 4096)
		kind, _, _ := strings.Cut(value, "/")
		prefix := "'-claims=" + kind + "/'"
		assert.Equal(t, 2, strings.Count(leftover, prefix), "both the condition and the variable must find %s", words[1])
	}
	assert.Contains(t, gate, "'"+api.LocalAnnotation+"' in object.metadata.annotations ?")
	assert.Contains(t, gate, "'-socket="+api.LocalSocket+"' in")
	assert.Contains(t, gate, "object.metadata.annotations[?'"+api.OnAPILossAnnotation+"'].orValue('') == '"+string(api.OnAPILossKill)+"' ? variables.shims")
	assert.Contains(t, gate, "v.name == '"+api.LocalVolume+"' && has(v.emptyDir)")
}

// claimed is a Lease that a pod of the workload can claim.
type claimed struct {
	lease string
	kind  *api.Kind
	of    api.Workload
}

// slots returns the Leases that pods of several workloads claim with the example values of each
// annotation.
func slots(t *testing.T) []claimed {
	t.Helper()
	long := strings.Repeat("x", 253)
	var all []claimed
	for _, a := range api.Annotations {
		if a.Kind == nil {
			continue
		}
		for _, value := range a.Examples {
			r, err := api.Parse(map[string]string{a.Key: value})
			require.NoError(t, err)
			for _, of := range []api.Workload{
				{Kind: "Pod", Name: "solo.1"}, {Kind: "Pod", Name: long}, {Group: "apps", Kind: "Deployment", Name: "a.b"},
				{Group: "my-group.example.com", Kind: "Rollout", Name: "1"}, {Group: long, Kind: "Pod", Name: "x"},
			} {
				for _, lease := range r.Slots(of) {
					require.True(t, api.IsSlot(lease), lease)
					all = append(all, claimed{lease, a.Kind, of})
				}
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

// expression returns the regular expression that the pattern "place" finds in a policy. If the
// policy has that expression several times, all of them must be equal. The function decodes the
// two escapes of CEL that the policies use: a zero byte, and the backslash.
func expression(t *testing.T, policy, place string) *regexp.Regexp {
	t.Helper()
	all := regexp.MustCompile(place).FindAllStringSubmatch(policy, -1)
	require.NotEmpty(t, all)
	for _, found := range all {
		require.Len(t, found, 2)
		require.Equal(t, all[0][1], found[1], "the policy has this expression in %d places", len(all))
	}
	return regexp.MustCompile(strings.ReplaceAll(strings.ReplaceAll(all[0][1], `\\`, `\`), `\x00`, "\x00"))
}

func TestLeasePolicyAllowsOnlyWellFormedFailureCounts(t *testing.T) {
	policy := texts(t)["policies/lease.yaml"]
	counts := expression(t, policy, `newFailures\.matches\('(.*?)'\)`)
	random := rand.New(rand.NewPCG(1, 2))
	keys := make([]string, 3*api.MostFailing)
	for i := range keys {
		keys[i] = strings.Repeat(string("azAZ09"[random.IntN(6)]), 1+random.IntN(61)) + fmt.Sprintf("%02d", i)
		require.True(t, api.IsKey(keys[i]))
	}
	keys[0], keys[1] = "v1.2_a-b", "7"
	most := 0
	for range 50 {
		failures := api.Failures(keys[2] + " 999999")
		for range 60 {
			key := keys[random.IntN(len(keys))]
			if random.IntN(8) == 0 {
				failures = failures.Without(key)
			} else {
				failures = failures.With(key)
			}
			require.Regexp(t, counts, string(failures))
			most = max(most, len(failures.Keys()))
		}
	}
	require.Equal(t, api.MostFailing, most)
	failing := make([]string, api.MostFailing)
	for i := range failing {
		failing[i] = fmt.Sprintf("%063d 1000000", i)
	}
	full := strings.Join(failing, ",")
	assert.Regexp(t, counts, full)
	assert.LessOrEqual(t, len(full), 8192, "the policy admits no longer annotation")
	assert.Regexp(t, counts, string(api.Failures("7 999999").With("7").With("7")), "the largest count")
	for _, text := range []string{
		full + ",8 1", "7", "7 ", "7 x", "7 -1", " 1", "7  1", "7 1 1", "7 1,", ",7 1", "7 1, 8 1", "7 1\n", "7\n1", "7 1;8 1", "7 10000000",
		"ké 1", "k/k 1", strings.Repeat("k", 64) + " 1",
	} {
		assert.NotRegexp(t, counts, text)
	}
}

// The console parses the instant since which a holder serves, and encodes that instant as JSON. Go
// cannot encode some instants that Go parses, such as an instant with the offset +24:00. So the
// policy must refuse such instants.
func TestLeasePolicyDemandsUTCTimeInServingAnnotation(t *testing.T) {
	admitted := expression(t, texts(t)["policies/lease.yaml"], `newServing\.matches\('(.*?)'\)`)
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(1_790_000_000, 1), time.Unix(1_790_000_000, 120_000_000), time.Unix(253402300799, 999_999_999)} {
		text := at.UTC().Format(time.RFC3339Nano) // the format in which an agent writes the instant
		assert.Regexp(t, admitted, text)
		assert.True(t, api.ServesInHold(text, at))
	}
	for _, text := range []string{
		"2026-11-23T00:00:00+24:00", "2026-11-23T00:00:00+01:00", "10000-01-01T00:00:00Z", "2026-11-23T00:00:00z", "2026-11-23 00:00:00Z",
		"2026-11-23T00:00:00", "2026-11-23T00:00:00,5Z", "2026-11-23T00:00:00.Z", "2026-11-23T00:00:00Z\n", " 2026-11-23T00:00:00Z", "true", "\x1b[2J",
	} {
		assert.NotRegexp(t, admitted, text)
	}
}

func TestLeasePolicyBoundsTheNumberOfDoneKeys(t *testing.T) {
	policy := texts(t)["policies/lease.yaml"]
	for _, bound := range []string{"variables.oldDone.split(',').size() < %d ?", "variables.newDone.split(',').size() == %d)"} {
		assert.Contains(t, policy, fmt.Sprintf(bound, api.MaxDone))
	}
}

// An arrival at the barrier of another Job would open that barrier too early.
func TestBarrierPolicyRefusesBarriersOfOtherJobs(t *testing.T) {
	policy := texts(t)["policies/barrier.yaml"]
	shown := expression(t, policy, `t\.matches\('(\^barrier.*?)'\)`)
	const run = "0b1c2d3e-0000-4000-8000-0123456789ab"
	args := api.BarrierArgs{Barrier: api.Barrier{Name: "a.b", Size: 32}, Run: run, LeaseDuration: time.Hour, Credentials: api.CredentialsPath}
	assert.Regexp(t, shown, strings.Join(args.Args(), "\x00"))
	args.WaitAtMost = 90*time.Second + time.Millisecond
	text := strings.Join(args.Args(), "\x00")
	assert.Regexp(t, shown, text)
	assert.NotRegexp(t, shown, text+"\x00-run=other")
	assert.NotRegexp(t, shown, strings.Replace(text, "-run=", "-run=other\x00-run=", 1))
	assert.True(t, strings.HasPrefix(text, "barrier\x00-barrier="+args.Barrier.String()+"\x00-run="+run+"\x00"))
	assert.Contains(t, policy, `t.startsWith('barrier\x00-barrier=' + variables.barrier.trim() + '\x00-run=' + j + '\x00')`)
}

// A program arrives at a barrier by its pod's agent. So the policy must check the Job in the
// arguments of that agent, too.
func TestBarrierPolicyChecksTheJobInAgentArguments(t *testing.T) {
	policy, gate := texts(t)["policies/barrier.yaml"], texts(t)["policies/gate.yaml"]
	shown := expression(t, policy, `t\.matches\('(\^api.*?)'\)`)
	const run = "0b1c2d3e-0000-4000-8000-0123456789ab"
	args := api.DefaultLocalArgs()
	args.Claims, args.Run = []api.Claim{{Kind: api.Arrivals, Name: "a.b", Size: 32}, {Kind: api.Lock, Name: "a", Size: 1}}, run
	assert.Regexp(t, shown, strings.Join(args.Args(), "\x00"))
	args.OwnKernel, args.Containers, args.Port, args.Socket = true, []string{"app", "log-sender"}, 0, api.LocalSocket
	text := strings.Join(args.Args(), "\x00")
	assert.Regexp(t, shown, text)
	assert.Regexp(t, expression(t, gate, `matches\('(\^api.*?)'\)`), text, "both policies admit the same arguments")
	assert.Contains(t, text, "\x00-run="+run+"\x00")
	for _, forged := range []string{
		text + "\x00-run=other", strings.Replace(text, "-run=", "-run=other\x00-run=", 1), text + "\x00-credentials=/x\x00-run=other",
	} {
		assert.NotRegexp(t, shown, forged)
		assert.NotRegexp(t, expression(t, gate, `matches\('(\^api.*?)'\)`), forged)
	}
	assert.Contains(t, policy, `variables.jobs.exists(j, t.contains('\x00-run=' + j + '\x00'))`)
}

// Only the first Lease of a barrier may have the record that opens the barrier. The record is a
// number of pods.
func TestOnlyFirstLeaseOfBarrierMayRecordOpening(t *testing.T) {
	lease := texts(t)["policies/lease.yaml"]
	name := expression(t, lease, `name\.matches\('(\^barrier.*?)'\)`)
	for i, of := range (api.Barrier{Name: "a", Size: 32}).Leases("0b1c2d3e") {
		assert.Equal(t, i == 0, name.MatchString(of), of)
		assert.Regexp(t, expression(t, strings.ReplaceAll(texts(t)["policies/enroll.yaml"], `\\`, `\`), `"'(\^.*?)'"`), of)
	}
	size := expression(t, lease, `newOpened\.matches\('(.*?)'\)`)
	for i := range 100 {
		assert.Equal(t, api.Opened(strconv.Itoa(i)) > 0, size.MatchString(strconv.Itoa(i)))
	}
}

// In CEL, a comprehension over the arguments would have a quadratic cost, and only the size of the
// pod bounds the number of arguments. So the policies join the arguments into one text.
func TestPoliciesNeverLoopOverArgumentsInCEL(t *testing.T) {
	for file, text := range texts(t) {
		if strings.HasPrefix(file, "policies/") {
			assert.NotRegexp(t, `(args|command)(\.orValue\(\[\]\))?\.(exists|all|filter|map|exists_one)\(`, text, file)
		}
	}
}

func TestPolicyMessagesListEveryKindOfClaim(t *testing.T) {
	marks, enroll := texts(t)["policies/marks.yaml"], texts(t)["policies/enroll.yaml"]
	proposed := regexp.MustCompile(`a slot is asked for with ([^'"]*)`).FindString(marks)
	for _, a := range api.Annotations {
		if a.Kind != nil {
			assert.Regexp(t, regexp.QuoteMeta(a.Key)+`(,| or |$)`, proposed)
		}
	}
	begins := regexp.MustCompile(`which begin with ([^'"]*)`).FindString(enroll)
	for _, kind := range api.Kinds() {
		if kind != api.Variable {
			assert.Regexp(t, "[ ,]"+kind.Name()+`\b`, begins)
		}
	}
}

func TestEnrollPolicyMatchesExactlyTheNamesOfSlots(t *testing.T) {
	policy := strings.ReplaceAll(texts(t)["policies/enroll.yaml"], `\\`, `\`)
	slot := expression(t, policy, `"'(\^.*?)'"`)
	unknown := map[string]string{}
	for _, known := range slots(t) {
		next := api.NextLease(known.lease)
		if !slot.MatchString(known.lease) || api.HasNextLease(known.lease) && !slot.MatchString(next) {
			unknown[known.kind.Name()] = known.lease
		}
	}
	assert.Empty(t, unknown, "enroll.yaml must match the Leases of each kind, here with an example")
	for _, lease := range []string{
		"next", "next.x", "next.kube-scheduler", "next.semaphore.x.0", "next.next.lock.x", "next.election.x", "next.rwlock.x.0", "rwlock.x", "rwlock.x.100", "rwlock..intent", "election", "election.", "elections.x", "x.next.lock.x", "nextlock.x",
		"cert-manager-controller", "kube-scheduler", "metaparticle-enroll", "lock", "locks.x", "lock.", "a.lock.x",
		"shards", "shards.x", "shards.deployment.x", "shards.deployment.0", "shards.deployment.x.100", "shards.deployment..0", "next.shards.deployment.x.0",
		"singleton", "singleton-elector", "singletons.deployment.x", "singleton.x", "singleton..x",
	} {
		require.False(t, api.IsSlot(lease), lease)
		assert.NotRegexp(t, slot, lease)
	}
}

func TestImagePolicyListsTheInjectedContainers(t *testing.T) {
	policy := texts(t)["policies/image.yaml"]
	names := "name in ['" + strings.Join(api.Injected, "', '") + "']"
	assert.Equal(t, 2, strings.Count(policy, names), "both the condition and the validation must contain the names")
	assert.Contains(t, policy, "c.?targetContainerName.orValue('') in ['"+strings.Join(api.Injected, "', '")+"']")
}

func TestPolicyAndWorkloadWebhookSelectTheSameObjects(t *testing.T) {
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

func TestPolicyWarnsOfEachAnnotationWithoutEffect(t *testing.T) {
	policy := texts(t)["policies/ineffective.yaml"]
	assert.Contains(t, policy, fmt.Sprintf(".substring(%d) in variables.names", len(api.Prefix)))
	assert.Contains(t, policy, "[?'"+api.InjectionLabel+"'].orValue('') == '"+api.InjectionEnabled+"'")
}

func TestEnrollPolicyLetsEnrollGrantTheAgentsRights(t *testing.T) {
	policy := texts(t)["policies/enroll.yaml"]
	assert.Equal(t, "metaparticle:", strings.TrimSuffix(enroll.RoleName("x"), "x"))
	assert.Contains(t, policy, "b.roleRef.name.startsWith('"+strings.TrimSuffix(enroll.VariableRoleName("x"), "x")+"')")
	for _, given := range enroll.VariableRules("x")[:1] {
		assert.Contains(t, policy, fmt.Sprintf("r.?apiGroups.orValue([]) == ['%s'] && r.?resources.orValue([]) == ['%s'] &&", given.APIGroups[0], given.Resources[0]))
		assert.Contains(t, policy, "r.?resourceNames.orValue([]).size() > 0 && r.verbs.all(v, v in ['"+strings.Join(given.Verbs, "', '")+"'])")
	}
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

// A Role for conditions has fewer rules, and fewer verbs on Leases, than a Role for slots. The rule
// by which policies recognize a Role for conditions names the resource "waiters".
func TestEnrollPolicyRestrictsConditionRolesToReading(t *testing.T) {
	policy := texts(t)["policies/enroll.yaml"]
	prefix := strings.TrimSuffix(enroll.ConditionRoleName("x"), "x")
	assert.Contains(t, policy, "(b.roleRef.name.startsWith('metaparticle:') || b.roleRef.name.startsWith('"+prefix+"') ||")
	found := regexp.MustCompile(`variables\.rules\.all\(r,\s+!object\.metadata\.name\.startsWith\('(.*?)'\) \|\| r\.verbs\.all\(v, v in \['(.*?)'\]\)\)\n`).
		FindStringSubmatch(policy)
	require.Len(t, found, 3)
	assert.Equal(t, prefix, found[1])
	var verbs []string
	agents := enroll.AgentRules("lock.x")
	for _, given := range enroll.ConditionRules("lock.x") {
		verbs = append(verbs, given.Verbs...)
		if given.Resources[0] == "waiters" {
			assert.Contains(t, policy, "r.?resources.orValue([]) == ['waiters'] && r.verbs == ['be']")
			assert.Contains(t, texts(t)["policies/events.yaml"], "resource('waiters')")
			continue
		}
		i := slices.IndexFunc(agents, func(of rbacv1.PolicyRule) bool { return slices.Equal(of.Resources, given.Resources) })
		require.GreaterOrEqual(t, i, 0, "the policy allows only the rules of agents")
		assert.Subset(t, agents[i].Verbs, given.Verbs)
		given.Verbs = agents[i].Verbs
		assert.Equal(t, agents[i], given)
	}
	assert.Equal(t, verbs, strings.Split(found[2], "', '"))
	for _, verb := range []string{"update", "patch"} {
		assert.NotContains(t, verbs, verb)
	}
}

func TestLeasePolicyRefusesDurationAboveTheMaximum(t *testing.T) {
	assert.Contains(t, texts(t)["policies/lease.yaml"], fmt.Sprintf("orValue(0) > %d\n", int(api.MaxLeaseDuration.Seconds())))
}

// The schema must have the same bounds as the agents. Each rule that compares an old and a new
// Variable must have a message that begins with a reason.
func TestVariableSchemaAndAgentsEnforceTheSameBounds(t *testing.T) {
	all := all[*apiextensionsv1.CustomResourceDefinition](t)
	require.Len(t, all, 1)
	assert.Equal(t, api.VariableResource+"."+api.VariableGroup, all[0].Name)
	assert.Equal(t, api.VariableKind, all[0].Spec.Names.Kind)
	assert.Equal(t, apiextensionsv1.NamespaceScoped, all[0].Spec.Scope)
	require.Len(t, all[0].Spec.Versions, 1)
	assert.Equal(t, api.VariableVersion, all[0].Spec.Versions[0].Name)
	schema := all[0].Spec.Versions[0].Schema.OpenAPIV3Schema
	assert.Equal(t, []string{"spec"}, schema.Required, "without a spec no rule would judge")
	spec := schema.Properties["spec"]
	assert.EqualValues(t, api.MaxValue, *spec.Properties["value"].MaxLength)
	assert.EqualValues(t, api.MaxKeys, *spec.Properties["keys"].MaxItems)
	assert.EqualValues(t, api.MaxIdempotencyKey, *spec.Properties["keys"].Items.Schema.Properties["key"].MaxLength)
	assert.EqualValues(t, api.FirstEpoch, *spec.Properties["fence"].Properties["epoch"].Minimum)
	for _, rule := range spec.XValidations {
		assert.Regexp(t, "^[A-Z][A-Za-z]+: ", rule.Message)
	}
	policy := texts(t)["policies/variable.yaml"]
	assert.Contains(t, policy, fmt.Sprintf("oldObject.spec.?keyed.orValue(0) <= %d", api.MaxKeys))
	assert.Contains(t, policy, fmt.Sprintf("oldObject.spec.fence.epoch : %d)", api.FirstEpoch))
}

// The policy on gates reads the gated containers from the agent's arguments.
func TestGatePolicyFindsGatedContainersInAgentArguments(t *testing.T) {
	found := regexp.MustCompile(`t\.matches\('([^']*)' \+ c\.name \+ '([^']*)'\)`).FindStringSubmatch(texts(t)["policies/gate.yaml"])
	require.Len(t, found, 3)
	args := api.DefaultRunArgs()
	args.Slots, args.Workload = []string{"lock.other"}, "Pod/other"
	args.Containers, args.InitContainers = []string{"app", "helper"}, []string{"migrate"}
	args.Probes = map[string]api.Probes{"app": {Liveness: &api.Probe{Handler: api.Handler{Exec: &api.ExecAction{Command: []string{"-containers=other"}}}}}}
	kept := expression(t, texts(t)["policies/gate.yaml"], `findAll\('(.*?)'\)`)
	told := strings.Join(kept.FindAllString("\x00"+strings.Join(args.Args(), "\x00"), -1), "") + "\x00"
	assert.NotContains(t, told, "probes", "each container costs a search through these arguments, and those of probes may be long")
	for name, gated := range map[string]bool{"app": true, "helper": true, "migrate": true, "other": false, "help": false, "elper": false} {
		named := regexp.MustCompile(strings.ReplaceAll(found[1]+name+found[2], `\x00`, "\x00"))
		assert.Equal(t, gated, named.MatchString(told), name)
	}
}

// A stamp says for which number of shards pods may acquire a Lease. An old stamp would let pods for
// the old and for the new number of shards run at the same time.
func TestStampPolicyLetsOnlyEnrollWriteStamps(t *testing.T) {
	policy := texts(t)["policies/stamp.yaml"]
	assert.Equal(t, 2, strings.Count(policy, "annotations[?'"+api.StampAnnotation+"'].orValue('')"))
	assert.Contains(t, policy, "request.userInfo.username != 'system:serviceaccount:metaparticle-system:metaparticle-webhook'")
	assert.NotContains(t, texts(t)["policies/lease.yaml"], api.StampAnnotation, "an agent keeps the annotations that the policy on Leases does not name")
}

// Words of any length could leave no room in the annotation for later done keys. So the policy
// admits only words that are valid keys.
func TestLeasePolicyAdmitsOnlyValidDoneKeys(t *testing.T) {
	admitted := expression(t, texts(t)["policies/lease.yaml"], `variables\.newDone\.matches\('(.*?)'\)`)
	for _, key := range []string{"7", "a.b_C-9", "0a1b2c3d-0000-4000-8000-000000000000", strings.Repeat("x", 63)} {
		require.True(t, api.IsKey(key))
		assert.Regexp(t, admitted, key)
		assert.Regexp(t, admitted, "6,"+key)
	}
	for _, word := range []string{"", "a b", "-a", "a.", "\x1b[2J", strings.Repeat("x", 64), strings.Repeat("x", 8192)} {
		require.False(t, api.IsKey(word))
		assert.NotRegexp(t, admitted, word)
		assert.NotRegexp(t, admitted, "6,"+word)
	}
}
