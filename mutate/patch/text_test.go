// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

func TestPatchTextMatchesStandardJSONEncodingOfOperations(t *testing.T) {
	operations := []jsonpatch.Operation{
		jsonpatch.NewOperation("add", `/a/b~1c"d`, json.RawMessage(`{"e":[1]}`)),
		jsonpatch.NewOperation("replace", "/f", map[string]any{"g": nil}),
		jsonpatch.NewOperation("add", "/h", nil),
		jsonpatch.NewOperation("remove", "/i", nil),
	}
	want, err := json.Marshal(operations)
	require.NoError(t, err)
	assert.JSONEq(t, string(want), string(Text(operations)))
	assert.Equal(t, "[]", string(Text(nil)))
}
