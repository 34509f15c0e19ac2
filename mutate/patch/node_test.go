// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unfoldAll unfolds every level of a node.
func unfoldAll(n *node) {
	n.unfold()
	for i := range n.members {
		unfoldAll(&n.members[i].value)
	}
	for i := range n.elements {
		unfoldAll(&n.elements[i])
	}
}

// A node has the value that encoding/json decodes from its text, before and after unfolding.
func FuzzJSONNodeDecodesLikePackageEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, ` { "a" : [ 1 , -2.5e3 , true , null , "x" ] , "b" : { } } `,
		`{"a":{"b":"}]\"\\"},"c":[[],[{}]]}`, `{"a":1,"a":{"b":2}}`, `{"A":"\u00e9\n/"}`, `"\ud800"`, "\"\xff\"", "{\"\xc3\x28\":1}", `12`,
	} {
		f.Add([]byte(seed), "a")
	}
	f.Fuzz(func(t *testing.T, text []byte, key string) {
		var want any
		if json.Unmarshal(text, &want) != nil {
			return
		}
		folded, opened := node{text: slices.Clone(text)}, node{text: slices.Clone(text)}
		require.Equal(t, want, folded.value())
		unfoldAll(&opened)
		require.Equal(t, want, opened.value())

		object, ok := want.(map[string]any)
		if !ok || !utf8.ValidString(key) {
			return
		}
		word, _ := object[key].(string)
		member, there := object[key]
		require.Equal(t, word, folded.word(key))
		require.Equal(t, there, folded.member(key) != nil)
		require.Equal(t, member, folded.member(key).value())
		require.Equal(t, there, folded.remove(key))
		require.Nil(t, folded.member(key))
		folded.set(key, node{text: []byte(`"new"`)})
		require.Equal(t, "new", folded.word(key))
	})
}

func TestMarshaledStringsDecodeToTheSameStrings(t *testing.T) {
	for _, words := range [][]string{nil, {}, {""}, {"a", "b c"}, {`"`, `\`, "\n", "é", "<&>", "\x7f", "\xff"}} {
		var got []string
		require.NoError(t, json.Unmarshal(marshal(words), &got))
		for i, word := range words {
			words[i] = string([]rune(word))
		}
		assert.Equal(t, words, got)
	}
}
