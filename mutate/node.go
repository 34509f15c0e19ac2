// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// node is a JSON value that stays text until somebody has to change what is in
// it. A pod is large, the part of it that changes is small, and every pod's
// start waits for the webhook. The text is valid: it was decoded before.
type node struct {
	// text is nil once the node is unfolded.
	text     []byte
	members  []member
	elements []node
	array    bool
}

type member struct {
	// key is as it came, without the quotes; escapes are in it.
	key   []byte
	value node
}

// member is an object's member, or nil. Of two of one name the last one
// counts, as it does for every decoder.
func (n *node) member(key string) *node {
	n.unfold()
	for i := len(n.members) - 1; i >= 0; i-- {
		if isKey(n.members[i].key, key) {
			return &n.members[i].value
		}
	}
	return nil
}

// element is an array's element, or nil.
func (n *node) element(i int) *node {
	if n == nil {
		return nil
	}
	n.unfold()
	if i >= len(n.elements) {
		return nil
	}
	return &n.elements[i]
}

// child is a member or an element, by what kind of step leads to it.
func (n *node) child(step any) *node {
	switch step := step.(type) {
	case string:
		return n.member(step)
	case int:
		return n.element(step)
	default:
		return nil
	}
}

// set puts a member there, or another value in the place of one that was.
func (n *node) set(key string, value node) (replaced bool) {
	if there := n.member(key); there != nil {
		*there = value
		return true
	}
	n.members = append(n.members, member{appendQuoted(nil, key), value})
	return false
}

// remove tells whether the member was there.
func (n *node) remove(key string) (found bool) {
	n.unfold()
	kept := n.members[:0]
	for _, m := range n.members {
		if isKey(m.key, key) {
			found = true
			continue
		}
		kept = append(kept, m)
	}
	n.members = kept
	return found
}

// unfold opens one level; what is in it stays text.
func (n *node) unfold() {
	if n.text == nil {
		return
	}
	n.array = isArray(n.text)
	switch {
	case n.array:
		for text := range elements(n.text) {
			n.elements = append(n.elements, node{text: text})
		}
	case isObject(n.text):
		n.members = make([]member, 0, 16) // as many as a container has
		for key, text := range members(n.text) {
			n.members = append(n.members, member{key, node{text: text}})
		}
	default:
		return // a word, a number or the like
	}
	n.text = nil
}

// absent: there is nothing, or null.
func (n *node) absent() bool { return n == nil || string(n.text) == "null" }

// value is the node as a decoder would give it.
func (n *node) value() any {
	switch {
	case n == nil:
		return nil
	case n.text != nil:
		return decoded(n.text)
	case n.array:
		array := make([]any, len(n.elements))
		for i := range n.elements {
			array[i] = n.elements[i].value()
		}
		return array
	}
	object := make(map[string]any, len(n.members))
	for i := range n.members {
		object[unquoted(n.members[i].key)] = n.members[i].value.value()
	}
	return object
}

// word is an object's member that is a string, looked up without unfolding.
func (n *node) word(key string) string {
	var found []byte
	if n.text == nil {
		if m := n.member(key); m != nil {
			found = m.text
		}
	} else if isObject(n.text) {
		for k, text := range members(n.text) {
			if isKey(k, key) {
				found = text
			}
		}
	}
	if len(found) == 0 || found[0] != '"' {
		return ""
	}
	return unquoted(found[1 : len(found)-1])
}

func decoded(text []byte) any {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		panic(fmt.Sprintf("text that was decoded before: %v", err))
	}
	return value
}

func isKey(text []byte, key string) bool {
	return string(text) == key || bytes.IndexByte(text, '\\') >= 0 && unquoted(text) == key
}

// unquoted is what is between the quotes, read.
func unquoted(text []byte) string {
	if simple(text) {
		return string(text)
	}
	quoted := append(append([]byte{'"'}, text...), '"')
	return decoded(quoted).(string)
}

// appendQuoted adds a string as it stands between quotes.
func appendQuoted(text []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			escaped, _ := json.Marshal(s) // a string always can be
			return append(text, escaped[1:len(escaped)-1]...)
		}
	}
	return append(text, s...)
}

// simple: no escape, and nothing that a decoder would replace.
func simple(text []byte) bool {
	for _, c := range text {
		if c == '\\' || c > '~' {
			return false
		}
	}
	return true
}

// marshal is for values of our own making, all of which can be marshalled.
func marshal(value any) []byte {
	if words, ok := value.([]string); ok && words != nil {
		return marshalWords(words)
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", value, err))
	}
	return text
}

// marshalWords is for commands, of which each container has two.
func marshalWords(words []string) []byte {
	text := append(make([]byte, 0, 128), '[') // as much as most need
	for i, word := range words {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendQuoted(append(text, '"'), word), '"')
	}
	return append(text, ']')
}
