// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// An unknown annotation may be a misspelt claim, so the webhook must refuse the pods. A few
// unknown annotations in the template are enough for that refusal.
func TestPodTemplateGetsLimitedNumberOfUnknownAnnotations(t *testing.T) {
	var all []string
	for i := range 20_000 {
		all = append(all, fmt.Sprintf(`"metaparticle.io/x%d":"1"`, i))
	}
	raw := []byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a",` + strings.Join(all, ",") + `}},"spec":{"template":{}}}`)
	operations, _, err := Carry(0, "Deployment", raw, nil)
	require.NoError(t, err)
	var patched workload
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, operations), &patched))
	carried := patched.Spec.Template.Annotations
	assert.Equal(t, "a", carried["metaparticle.io/lock"])
	assert.Len(t, carried, 1+maxUnknown)
	_, err = api.Parse(carried)
	assert.Error(t, err)
}
