// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/metaparticle-io/metaparticle/api"
)

// record is the record of an add with an idempotency key, as in the spec of a Variable.
type record struct {
	key    string
	result int64
	pod    string
}

// variable returns a Variable with records of adds. The argument "pod" is the uid of the last writer.
func variable(pod string, records ...record) *unstructured.Unstructured {
	keys := []any{}
	for _, r := range records {
		keys = append(keys, map[string]any{"key": r.key, "add": int64(1), "result": r.result, "pod": r.pod, "at": r.result})
	}
	v := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{"integer": int64(5), "write": pod + ".p.1", "keyed": int64(len(records)), "keys": keys},
	}}
	v.SetGroupVersionKind(schema.GroupVersionKind{Group: api.VariableGroup, Version: api.VariableVersion, Kind: api.VariableKind})
	v.SetNamespace(shop)
	v.SetName("orders")
	return v
}

// written returns the messages of the policies that refuse a write of a Variable by the pod "b".
func written(t testing.TB, before, after *unstructured.Unstructured) []string {
	t.Helper()
	return refusals(t, request{
		by:       pod("till-b", "b"),
		may:      isAgent,
		resource: schema.GroupVersionResource{Group: api.VariableGroup, Version: api.VariableVersion, Resource: api.VariableResource},
		in:       namespace(shop, true), object: after, old: before,
	})
}

// The record answers a repeated add. So a false record would be a false answer for another pod.
func TestAgentNeverReplacesTheRecordOfAKey(t *testing.T) {
	first, own := record{"order-17", 5, "a"}, record{"order-16", 4, "b"}
	before := variable("a", own, first)
	for what, records := range map[string][]record{
		"another pod's record is replaced": {own, {"order-17", -999, "b"}},
		"another record of the key":        {own, first, {"order-17", -999, "b"}},
		"another result":                   {own, {"order-17", -999, "a"}},
		"another pod's name":               {own, first, {"order-18", 6, "a"}},
	} {
		refused := written(t, before, variable("b", records...))
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYourIdentity: an agent records only its own pod's adds", what)
	}
	for what, records := range map[string][]record{
		"no add":                      {own, first},
		"a new key":                   {own, first, {"order-18", 6, "b"}},
		"a new key for another pod's": {own, {"order-18", 6, "b"}},
		"a new key for its own":       {first, {"order-18", 6, "b"}},
		"no record":                   nil,
	} {
		assert.Empty(t, written(t, before, variable("b", records...)), what)
	}
}

// A full Variable would make the writes of all other agents invalid for ever.
func TestAgentNeverFillsAVariable(t *testing.T) {
	const apply = metav1.ManagedFieldsOperationApply
	before, after := variable("a"), variable("b")
	before.SetManagedFields([]metav1.ManagedFieldsEntry{applied("gitops", apply, 40)})
	for _, list := range [][]metav1.ManagedFieldsEntry{
		nil, {applied("gitops", apply, 40)}, {applied("gitops", apply, 4), applied("agent", metav1.ManagedFieldsOperationUpdate, 40)},
	} {
		after.SetManagedFields(list)
		assert.Empty(t, written(t, before, after))
	}
	after.SetManagedFields([]metav1.ManagedFieldsEntry{applied("gitops", apply, 40), applied("m", apply, 10_000)})
	refused := written(t, before, after)
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: an agent applies no Variable")
	const update = metav1.ManagedFieldsOperationUpdate
	many := make([]metav1.ManagedFieldsEntry, 4)
	for i := range many {
		many[i] = applied("m", update, 10_000)
		many[i].Subresource = strings.Repeat("s", i)
	}
	for what, list := range map[string][]metav1.ManagedFieldsEntry{"one entry": {applied("m", update, 1_400_000)}, "small entries": many} {
		after.SetManagedFields(list)
		refused = written(t, before, after)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: an agent fills no list", what)
	}
	after.SetManagedFields(nil)
	after.SetGenerateName(strings.Repeat("x", 1_400_000))
	refused = written(t, before, after)
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: an agent changes only the spec of a Variable")
}

// An agent fences a Variable only by a lock of its own, and names its own pod in each write.
func TestAgentMayNotImpersonateOtherPodsInVariables(t *testing.T) {
	before := variable("a", record{"k", 1, "b"})
	fenced := func(lock string, epoch, token int64) func(*unstructured.Unstructured) {
		return func(v *unstructured.Unstructured) {
			v.Object["spec"].(map[string]any)["fence"] = map[string]any{"lock": lock, "epoch": epoch, "token": token}
		}
	}
	fenced("lock.a", 1, 10)(before)
	mayLock := func(a authorizer.Attributes) bool {
		return isAgent(a) || a.GetResource() == "leases" && a.GetVerb() == "update" && a.GetName() == "lock.a"
	}
	for what, test := range map[string]struct {
		change func(*unstructured.Unstructured)
		want   string
	}{
		"its own write":       {func(*unstructured.Unstructured) {}, ""},
		"a later hold":        {fenced("lock.a", 1, 11), ""},
		"a label":             {func(v *unstructured.Unstructured) { v.SetLabels(map[string]string{"a": "b"}) }, "NotYours: "},
		"an owner":            {func(v *unstructured.Unstructured) { v.SetFinalizers([]string{"a.b/c"}) }, "NotYours: "},
		"another pod's write": {func(v *unstructured.Unstructured) { v.Object["spec"].(map[string]any)["write"] = "other.1" }, "NotYourIdentity: "},
		"another pod's key": {func(v *unstructured.Unstructured) {
			v.Object["spec"].(map[string]any)["keys"] = variable("b", record{"k", 1, "b"}, record{"l", 2, "other"}).Object["spec"].(map[string]any)["keys"]
		}, "NotYourIdentity: "},
		"a far count":            {func(v *unstructured.Unstructured) { v.Object["spec"].(map[string]any)["keyed"] = int64(66) }, "NotYours: one write counts"},
		"a larger epoch":         {fenced("lock.a", 2, 10), "NotYours: an agent begins no epoch"},
		"another account's lock": {fenced("lock.b", 1, 99), "NotYourLock: "},
	} {
		after := variable("b", record{"k", 1, "b"})
		fenced("lock.a", 1, 10)(after)
		test.change(after)
		write := request{
			by: pod("till-b", "b"), may: mayLock, in: namespace(shop, true), object: after, old: before,
			resource: schema.GroupVersionResource{Group: api.VariableGroup, Version: api.VariableVersion, Resource: api.VariableResource},
		}
		refused := refusals(t, write)
		write.by = &user.DefaultInfo{Name: "system:serviceaccount:shop:till"}
		assert.Contains(t, strings.Join(refusals(t, write), ""), "metaparticle-variable: NoIdentity: ", what)
		if test.want == "" {
			assert.Empty(t, refused, what)
			continue
		}
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "metaparticle-variable: "+test.want, what)
	}
}

func TestWebhookAccountMayOnlyCreateEmptyVariables(t *testing.T) {
	empty := func(change func(*unstructured.Unstructured)) *unstructured.Unstructured {
		v := variable("")
		v.Object["spec"] = map[string]any{}
		change(v)
		return v
	}
	spec := func(v *unstructured.Unstructured) { v.Object["spec"] = map[string]any{"integer": int64(7)} }
	none := func(*unstructured.Unstructured) {}
	for what, test := range map[string]struct {
		now, old object
		refused  bool
	}{
		"an empty one": {empty(none), nil, false}, "a value": {empty(spec), nil, true}, "a change": {empty(spec), empty(none), true},
		"a deletion":  {nil, empty(none), true},
		"a label":     {empty(func(v *unstructured.Unstructured) { v.SetLabels(map[string]string{"a": "b"}) }), nil, true},
		"a finalizer": {empty(func(v *unstructured.Unstructured) { v.SetFinalizers([]string{"a.b/c"}) }), nil, true},
	} {
		refused := refusals(t, request{
			by: webhookAccount, in: namespace(shop, true), object: test.now, old: test.old,
			resource: schema.GroupVersionResource{Group: api.VariableGroup, Version: api.VariableVersion, Resource: api.VariableResource},
		})
		if !test.refused {
			assert.Empty(t, refused, what)
			continue
		}
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: enroll creates Variables without a value", what)
	}
}

// A full list costs the policy most.
func TestAgentWritesAVariableWithAllItsKeys(t *testing.T) {
	var records []record
	for n := range api.MaxKeys {
		records = append(records, record{fmt.Sprintf("%064d", n), int64(n), "b"})
	}
	half := slices.Clone(records[api.MaxKeys/2:])
	for n := range api.MaxKeys / 2 {
		half = append(half, record{fmt.Sprintf("%064d", api.MaxKeys+n), 1, "b"})
	}
	assert.Empty(t, written(t, variable("a", records...), variable("b", half...)))
}

// BenchmarkPoliciesOfAVariable measures what all policies together cost the API server in one write
// of a Variable with all its keys. Two pods have an equal share of the keys.
func BenchmarkPoliciesOfAVariable(b *testing.B) {
	var records []record
	for n := range api.MaxKeys {
		records = append(records, record{fmt.Sprintf("%064d", n), int64(n), []string{"a", "b"}[n%2]})
	}
	before, after := variable("a", records...), variable("b", append(slices.Clone(records[1:]), record{"new", 1, "b"})...)
	for b.Loop() {
		require.Empty(b, written(b, before, after))
	}
}
