// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

func TestPatchTextMatchesStandardJSONEncodingOfOperations(t *testing.T) {
	operations := []jsonpatch.Operation{
		jsonpatch.NewOperation("add", `/a/b~1c"d`, json.RawMessage(`{"e":[1]}`)),
		jsonpatch.NewOperation("add", "/h", json.RawMessage("null")),
		jsonpatch.NewOperation("remove", "/i", nil),
	}
	want, err := json.Marshal(operations)
	require.NoError(t, err)
	assert.JSONEq(t, string(want), string(Text(operations)))
	assert.Equal(t, "[]", string(Text(nil)))
}

// openAll opens every level of a document.
func openAll(d *Document, path ...any) {
	switch at := d.at(path...).(type) {
	case map[string]any:
		for key := range at {
			openAll(d, append(slices.Clip(path), key)...)
		}
	case *array:
		for i := range at.elements {
			openAll(d, append(slices.Clip(path), i)...)
		}
	}
}

func TestMovedElementKeepsItsNumbersAndUnknownMembers(t *testing.T) {
	d, err := Open([]byte(`{"list":[{"name":"a"},{"name":"b","odd":[12345678901234567890.12,{"x":null}]}]}`))
	require.NoError(t, err)
	openAll(d)
	d.Move(1, 0, "list")
	assert.JSONEq(t, `[{"op":"remove","path":"/list/1"},
		{"op":"add","path":"/list/0","value":{"name":"b","odd":["x",{"x":null}]}}]`,
		strings.Replace(string(Text(d.Operations())), "12345678901234567890.12", `"x"`, 1))
}

// A document has the value that encoding/json decodes from its text, whatever parts of it are still text.
func FuzzDocumentDecodesLikePackageEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, ` { "a" : [ 1 , -2.5e3 , true , null , "x" ] , "b" : { } } `,
		`{"a":{"b":"}]\"\\"},"c":[[],[{}]]}`, `{"a":1,"a":{"b":2}}`, `{"A":"\u00e9\n/"}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", "{\"\xc3\x28\":1}",
	} {
		f.Add([]byte(seed), "a")
	}
	f.Fuzz(func(t *testing.T, text []byte, key string) {
		var want any
		if json.Unmarshal(text, &want) != nil {
			return
		}
		d, err := Open(text)
		object, ok := want.(map[string]any)
		require.Equal(t, ok, err == nil)
		if !ok {
			return
		}
		require.Equal(t, want, d.Get())
		openAll(d)
		require.Equal(t, want, d.Get())
		require.Equal(t, object[key], d.Get(key))
		d.Remove(key)
		require.Nil(t, d.Get(key))
		_, had := object[key]
		require.Equal(t, had, len(d.Operations()) == 1)
		d.Set("new", key)
		require.Equal(t, "new", d.Get(key))
	})
}
