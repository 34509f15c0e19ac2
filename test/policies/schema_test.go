// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apiservercel "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

// schemaOfVariables returns the schema of Variables.
func schemaOfVariables(t *testing.T) *apiextensions.JSONSchemaProps {
	t.Helper()
	text, err := os.ReadFile("../../manifests/variables.yaml")
	require.NoError(t, err)
	definition := new(apiextensionsv1.CustomResourceDefinition)
	require.NoError(t, yaml.UnmarshalStrict(text, definition))
	props := new(apiextensions.JSONSchemaProps)
	require.NoError(t, apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
		definition.Spec.Versions[0].Schema.OpenAPIV3Schema, props, nil))
	return props
}

// judged returns the words before the colons of those messages by which the rules of the Variables'
// schema refuse a write. The write replaces the spec "before" by the spec "after".
func judged(t *testing.T, before, after map[string]any) (reasons []string) {
	t.Helper()
	schema, err := structural.NewStructural(schemaOfVariables(t))
	require.NoError(t, err)
	refusals, _ := cel.NewValidator(schema, true, apiservercel.PerCallLimit).Validate(
		t.Context(), nil, schema, map[string]any{"spec": after}, map[string]any{"spec": before}, apiservercel.RuntimeCELCostBudget)
	for _, r := range refusals {
		reason, _, _ := strings.Cut(r.Detail, ":")
		reasons = append(reasons, reason)
	}
	return reasons
}

func TestVariableSchemaRefusesEachWrongChange(t *testing.T) {
	t.Parallel()
	type spec = map[string]any
	fence := func(lock string, epoch, token int64) spec {
		return spec{"fence": spec{"lock": lock, "epoch": epoch, "token": token}}
	}
	number, text, held := spec{"integer": int64(1)}, spec{"value": "x"}, fence("lock.a", 2, 10)
	counted := func(n int64) spec { return spec{"keyed": n} }
	for name, test := range map[string]struct {
		before, after spec
		want          []string
	}{
		"the first integer":        {spec{}, number, nil},
		"the first text":           {spec{}, text, nil},
		"another integer":          {number, spec{"integer": int64(math.MinInt64)}, nil},
		"two types":                {number, spec{"integer": int64(1), "value": "x"}, []string{"TwoTypes"}},
		"two types at once":        {spec{}, spec{"integer": int64(1), "value": "x"}, []string{"TwoTypes"}},
		"a text for an integer":    {number, text, []string{"TypeChanged"}},
		"an integer for a text":    {text, number, []string{"TypeChanged"}},
		"no integer any more":      {number, spec{}, []string{"TypeChanged"}},
		"no text any more":         {text, spec{}, []string{"TypeChanged"}},
		"the longest text":         {text, spec{"value": strings.Repeat("é", 2048)}, nil},
		"a text of too many bytes": {text, spec{"value": strings.Repeat("é", 2048) + "x"}, []string{"TooLong"}},
		"the first fence":          {spec{}, held, nil},
		"the same hold":            {held, held, nil},
		"a later hold":             {held, fence("lock.a", 2, 11), nil},
		"an earlier hold":          {held, fence("lock.a", 2, 9), []string{"FencedOff"}},
		"a later epoch":            {held, fence("lock.a", 3, 1), nil},
		"an earlier epoch":         {held, fence("lock.a", 1, 99), []string{"FencedOff"}},
		"no fence any more":        {held, spec{}, []string{"FenceChanged"}},
		"another lock":             {held, fence("lock.b", 2, 11), []string{"FenceChanged"}},
		"the largest token":        {held, fence("lock.a", 2, math.MaxInt64), nil},
		"the first count":          {spec{}, counted(1), nil},
		"the same count":           {counted(5), counted(5), nil},
		"a larger count":           {counted(5), counted(6), nil},
		"a smaller count":          {counted(5), counted(4), []string{"KeysCounted"}},
		"no count any more":        {counted(5), spec{}, []string{"KeysCounted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, test.want, judged(t, test.before, test.after))
		})
	}
}

func TestVariableSchemaBoundsEachField(t *testing.T) {
	validator, _, err := validation.NewSchemaValidator(schemaOfVariables(t))
	require.NoError(t, err)
	keys := make([]any, api.MaxKeys+1)
	for i := range keys {
		keys[i] = map[string]any{"key": fmt.Sprint(i), "add": int64(1), "result": int64(i), "pod": "p", "at": int64(i)}
	}
	fence := func(epoch, token int64) map[string]any {
		return map[string]any{"lock": "lock.a", "epoch": epoch, "token": token}
	}
	for what, test := range map[string]struct {
		field string
		value any
		want  string
	}{
		"the smallest integer":        {"integer", int64(math.MinInt64), ""},
		"the largest integer":         {"integer", int64(math.MaxInt64), ""},
		"the longest text":            {"value", strings.Repeat("x", api.MaxValue), ""},
		"all keys":                    {"keys", keys[1:], ""},
		"the first fence":             {"fence", fence(1, 1), ""},
		"a fraction":                  {"integer", 1.5, "spec.integer"},
		"a text as an integer":        {"integer", "1", "spec.integer"},
		"many characters":             {"value", strings.Repeat("x", api.MaxValue+1), "4096"},
		"many keys":                   {"keys", keys, "must have at most 64 items"},
		"an epoch before the first":   {"fence", fence(0, 30), "spec.fence.epoch"},
		"no token":                    {"fence", map[string]any{"lock": "lock.a", "epoch": int64(1)}, "spec.fence.token"},
		"a lock with a capital":       {"fence", map[string]any{"lock": "Lock", "epoch": int64(1), "token": int64(1)}, "spec.fence.lock"},
		"a write with a long name":    {"write", strings.Repeat("x", 65), "spec.write"},
		"a null instead of an object": {"keys", nil, "spec.keys"},
	} {
		errs := validation.ValidateCustomResource(nil, map[string]any{"spec": map[string]any{test.field: test.value}}, validator)
		if test.want == "" {
			assert.Empty(t, errs, what)
			continue
		}
		assert.Contains(t, fmt.Sprint(errs), test.want, what)
	}
}
