// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package patch changes a JSON object by explicit operations.
//
// Guarantee: an operation names only the members that the caller changes. All other members stay
// where they are and never appear in the operations, whether or not the Go types of this build know
// them. Setting a member to the value that it already has adds no operation.
//
// Not guaranteed: that the text of an object is valid. The caller has decoded the text
// before.
package patch

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
)

// Document is a JSON object and the operations that have changed it. A path consists of
// keys (string) and indices (int).
type Document struct {
	root       node
	operations []jsonpatch.Operation
}

var errNoObject = errors.New("not a JSON object")

// Open returns the document of a text that is a JSON object. For any other JSON, Open returns an
// error. The caller must make sure that the text is valid JSON.
func Open(raw []byte) (*Document, error) {
	if !isObject(raw) {
		return nil, errNoObject
	}
	return &Document{root: node{text: raw}}, nil
}

// Operations returns the operations that change the text given to [Open] into the document.
func (d *Document) Operations() []jsonpatch.Operation { return d.operations }

// Get returns the value at a path, or nil.
func (d *Document) Get(path ...any) any { return d.at(path...).value() }

// Set sets the member at a path to a value, and adds each JSON object that is missing on
// the path. The path must end in a key, and every array element on the path must exist.
func (d *Document) Set(value any, path ...any) {
	text := marshal(value)
	if there := d.at(path...); there.absent() || !reflect.DeepEqual(there.value(), decoded(text)) {
		d.write(text, path...)
	}
}

// Remove removes the member at a path, if the object has the member.
func (d *Document) Remove(path ...any) {
	if parent := d.at(path[:len(path)-1]...); parent != nil && parent.remove(path[len(path)-1].(string)) {
		d.record("remove", nil, path...)
	}
}

// RemoveAll removes the members with the given keys from the object at a path. RemoveAll
// reads the object only once, because a hostile update may remove thousands of members.
func (d *Document) RemoveAll(keys []string, path ...any) {
	parent := d.at(path...)
	if parent == nil || len(keys) == 0 {
		return
	}
	found := parent.removeAll(keys)
	for _, key := range keys {
		if found[key] {
			d.record("remove", nil, append(slices.Clip(path), key)...)
		}
	}
}

// Index looks in the array at a path for the first element whose member has the value, and
// returns the index of that element.
func (d *Document) Index(member, value string, path ...any) (int, bool) {
	array := d.at(path...)
	for i := 0; array.element(i) != nil; i++ {
		if array.element(i).word(member) == value {
			return i, true
		}
	}
	return 0, false
}

// Ensure puts a value into the array at a path. The argument "member" is the key that identifies
// elements, such as "name". If an element and the value agree in this member, the element
// gets every member of the value. The element keeps its other members, such as defaults,
// and mounts from other injectors. If no element agrees, the function appends the value.
func (d *Document) Ensure(member string, value any, path ...any) {
	text := marshal(value)
	object := node{text: text}
	i, ok := d.Index(member, object.word(member), path...)
	if !ok {
		d.push(text, path...)
		return
	}
	wanted := object.value().(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		at := append(slices.Clip(path), i, key)
		if !covers(d.Get(at...), wanted[key]) {
			d.write(object.member(key).text, at...)
		}
	}
}

// Insert inserts a value into the array at a path, before the element at an index.
func (d *Document) Insert(value any, index int, path ...any) {
	text := marshal(value)
	array := d.at(path...)
	array.unfold()
	array.elements = slices.Insert(array.elements, index, node{text: text})
	d.record("add", json.RawMessage(text), append(slices.Clip(path), index)...)
}

// Delete removes an element of the array at a path.
func (d *Document) Delete(index int, path ...any) {
	array := d.at(path...)
	array.unfold()
	array.elements = slices.Delete(array.elements, index, index+1)
	d.record("remove", nil, append(slices.Clip(path), index)...)
}

// push appends a value to the array at a path, and makes the array if there is none.
func (d *Document) push(text []byte, path ...any) {
	array := d.at(path...)
	if array.element(0) == nil {
		d.write(slices.Concat([]byte{'['}, text, []byte{']'}), path...)
		return
	}
	array.elements = append(array.elements, node{text: text})
	d.record("add", json.RawMessage(text), append(slices.Clip(path), "-")...)
}

// write sets the member at a path to the text. Each caller has checked that the member lacks
// this value.
func (d *Document) write(text []byte, path ...any) {
	parent := &d.root
	for i := 1; i < len(path); i++ {
		child := parent.child(path[i-1])
		if child.absent() {
			for j := len(path) - 1; j >= i; j-- {
				text = marshal(map[string]json.RawMessage{path[j].(string): text})
			}
			path = path[:i]
			break
		}
		parent = child
	}
	operation := "add"
	if parent.set(path[len(path)-1].(string), node{text: text}) {
		operation = "replace"
	}
	d.record(operation, json.RawMessage(text), path...)
}

// at returns the node at a path, or nil.
func (d *Document) at(path ...any) *node {
	at := &d.root
	for _, step := range path {
		if at = at.child(step); at == nil {
			return nil
		}
	}
	return at
}

// record adds an operation, with its path as a JSON pointer.
func (d *Document) record(operation string, value any, path ...any) {
	var pointer strings.Builder
	pointer.Grow(64) // as much as most pointers need
	for _, step := range path {
		pointer.WriteByte('/')
		switch step := step.(type) {
		case string:
			if strings.ContainsAny(step, "~/") {
				step = escape.Replace(step)
			}
			pointer.WriteString(step)
		case int:
			pointer.WriteString(strconv.Itoa(step))
		}
	}
	d.operations = append(d.operations, jsonpatch.NewOperation(operation, pointer.String(), value))
}

// escape escapes a key for a JSON pointer.
var escape = strings.NewReplacer("~", "~0", "/", "~1")

// covers reports whether a value has everything that a wanted value has. If a wanted list consists
// of JSON objects, the value's list may have these objects in any order, and further objects. Other
// lists must be equal.
func covers(there, wanted any) bool {
	switch wanted := wanted.(type) {
	case map[string]any:
		object, ok := there.(map[string]any)
		if !ok {
			return len(wanted) == 0 && there == nil
		}
		for key, value := range wanted {
			if !covers(object[key], value) {
				return false
			}
		}
		return true
	case []any:
		array, _ := there.([]any)
		if len(wanted) == 0 {
			return len(array) == 0
		}
		if _, objects := wanted[0].(map[string]any); !objects {
			return reflect.DeepEqual(there, any(wanted))
		}
		for _, value := range wanted {
			if !slices.ContainsFunc(array, func(element any) bool { return covers(element, value) }) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(there, wanted)
	}
}
