// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import "slices"

// node is a JSON value that stays text until a change concerns a part of the value. A pod
// is large, and the part that changes is small. So the webhook saves the time to decode the whole
// pod. The text is valid, because the caller has decoded the text before.
type node struct {
	// text is nil once the node is unfolded into members or elements.
	text     []byte
	members  []member
	elements []node
	array    bool
}

type member struct {
	// key is the text between the quotes, with its escapes.
	key   []byte
	value node
}

// member returns a member of an object, or nil. If two members have one name, the last
// member counts, as in every decoder.
func (n *node) member(key string) *node {
	n.unfold()
	for i := len(n.members) - 1; i >= 0; i-- {
		if isKey(n.members[i].key, key) {
			return &n.members[i].value
		}
	}
	return nil
}

// element returns an element of an array, or nil.
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

// child returns the member with a key (string), or the element at an index (int).
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

// set gives a member a value, and reports whether the object had the member.
func (n *node) set(key string, value node) (replaced bool) {
	if there := n.member(key); there != nil {
		*there = value
		return true
	}
	n.members = append(n.members, member{appendQuoted(nil, key), value})
	return false
}

// remove removes a member, and reports whether the object had the member.
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

// removeAll removes the members with the keys. The result tells for each key whether the object
// had a member with this key.
func (n *node) removeAll(keys []string) (found map[string]bool) {
	found = make(map[string]bool, len(keys))
	for _, key := range keys {
		found[key] = false
	}
	n.unfold()
	n.members = slices.DeleteFunc(n.members, func(m member) bool {
		key := unquoted(m.key)
		_, gone := found[key]
		if gone {
			found[key] = true
		}
		return gone
	})
	return found
}

// unfold turns one level of the text into members or elements, which stay text.
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
		n.members = make([]member, 0, 16) // a container has about 16 members
		for key, text := range members(n.text) {
			n.members = append(n.members, member{key, node{text: text}})
		}
	default:
		return // a string, a number, true, false or null
	}
	n.text = nil
}

// absent reports whether the node is missing or null.
func (n *node) absent() bool { return n == nil || string(n.text) == "null" }

// value returns the value that a decoder would make of the node.
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

// word returns the string in a member of an object. The result is empty if the member is missing
// or is not a string. If the object is still text, word only searches the text, and does not
// unfold the object into nodes.
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
