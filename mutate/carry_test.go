// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// An unknown annotation may be a misspelt claim, so the webhook must refuse the pods. A few
// unknown annotations in the template are enough for that refusal.
func TestPodTemplateGetsLimitedNumberOfUnknownAnnotations(t *testing.T) {
	var all []string
	for i := range 20_000 {
		all = append(all, fmt.Sprintf(`"metaparticle.io/x%d":"1"`, i))
	}
	raw := []byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a",` + strings.Join(all, ",") + `}},"spec":{"template":{}}}`)
	operations, _, err := Carry(t.Context(), Workload{Kind: "Deployment", Raw: raw})
	require.NoError(t, err)
	var patched workload
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, operations), &patched))
	carried := patched.Spec.Template.Annotations
	assert.Equal(t, "a", carried["metaparticle.io/lock"])
	assert.Len(t, carried, 1+maxUnknown)
	_, err = api.Parse(carried)
	assert.Error(t, err)
}

// A once claim holds back only the work of an init container, and the application always runs beside it.
// With the gate "readiness" the application runs in every pod.
func TestClaimChangedComparesOnlySlotsOfOneSort(t *testing.T) {
	const (
		nothing, singleton = "", `"metaparticle.io/singleton":"true"`
		schema, other      = `"metaparticle.io/once":"schema=7","metaparticle.io/containers":"migrate"`, `"metaparticle.io/once":"other=7","metaparticle.io/containers":"migrate"`
		ready              = singleton + `,"metaparticle.io/gate":"readiness"`
		earlier, all, both = "the earlier pods run the application without a slot", "without a slot, all pods run the application", "beside the holder of"
	)
	for _, c := range []struct{ before, now, want string }{
		{nothing, singleton, earlier}, {singleton, nothing, all}, {singleton, singleton, ""},
		{nothing, schema, ""}, {schema, nothing, ""}, {schema, schema, ""}, {schema, other, both},
		{schema, singleton, earlier}, {singleton, schema, all},
		{nothing, ready, earlier}, {ready, nothing, all}, {ready, ready, ""},
		{ready, singleton, earlier}, {singleton, ready, all}, {ready, schema, ""}, {schema, ready, ""},
	} {
		deployment := func(annotations string) []byte {
			return fmt.Appendf(nil, `{"metadata":{"name":"biller"},"spec":{"replicas":2,"template":{"metadata":{"annotations":{%s}},"spec":{
				"initContainers":[{"name":"migrate","command":["x"]}],"containers":[{"name":"app","command":["x"]}]}}}}`, annotations)
		}
		_, warnings, err := Carry(t.Context(), Workload{Kind: "Deployment", Raw: deployment(c.now), Old: deployment(c.before), Kubernetes: feature.RestartsAll})
		require.NoError(t, err)
		i := slices.IndexFunc(warnings, func(w reason.Refusal) bool { return w.Reason == reason.ClaimChanged })
		require.Equal(t, c.want != "", i >= 0, "%s to %s: %v", c.before, c.now, warnings)
		if i >= 0 {
			assert.Contains(t, warnings[i].Detail, c.want, "%s to %s", c.before, c.now)
		}
	}
}
