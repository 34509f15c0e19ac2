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
	// root is a map[string]any. In it, an object is a map, and an array is an *array. What no path has led
	// to is still text (json.RawMessage): a pod is large, and the part that changes is small, so decoding
	// all of it would take longer than everything else.
	root       any
	operations []jsonpatch.Operation
}

type array struct{ elements []any }

// MarshalJSON implements [json.Marshaler].
func (a *array) MarshalJSON() ([]byte, error) { return json.Marshal(a.elements) }

var errNoObject = errors.New("not a JSON object")

// Open returns the document of a text that is a JSON object. For any other JSON, Open returns an
// error. The caller must make sure that the text is valid JSON.
func Open(raw []byte) (*Document, error) {
	root, ok := opened(json.RawMessage(raw)).(map[string]any)
	if !ok {
		return nil, errNoObject
	}
	return &Document{root: root}, nil
}

// opened decodes one level of a text that is an object or an array. If two members have one name, the last
// member counts, as in every decoder.
func opened(value any) any {
	text, ok := value.(json.RawMessage)
	if !ok {
		return value
	}
	switch text[space(text, 0)] {
	case '{':
		object := map[string]any{}
		for key, member := range members(text) {
			object[unquoted(key)] = json.RawMessage(member)
		}
		return object
	case '[':
		list := new(array)
		for element := range elements(text) {
			list.elements = append(list.elements, json.RawMessage(element))
		}
		return list
	}
	return value
}

// at returns what is at a path, opened, or nil.
func (d *Document) at(path ...any) any {
	at := d.root
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := at.(map[string]any)
			child, there := object[step]
			if !there {
				return nil
			}
			at = opened(child)
			object[step] = at
		case int:
			list, ok := at.(*array)
			if !ok || step >= len(list.elements) {
				return nil
			}
			at = opened(list.elements[step])
			list.elements[step] = at
		}
	}
	return at
}

// absent reports whether a value is missing or null.
func absent(value any) bool {
	text, ok := value.(json.RawMessage)
	return value == nil || ok && string(text) == "null"
}

// decoded returns what a decoder would make of a value.
func decoded(value any) any {
	switch value := value.(type) {
	case json.RawMessage:
		return decode(value)
	case map[string]any:
		object := make(map[string]any, len(value))
		for key, member := range value {
			object[key] = decoded(member)
		}
		return object
	case *array:
		list := make([]any, len(value.elements))
		for i, element := range value.elements {
			list[i] = decoded(element)
		}
		return list
	}
	return nil
}

// Operations returns the operations that change the text given to [Open] into the document.
func (d *Document) Operations() []jsonpatch.Operation { return d.operations }

// Get returns the value at a path, or nil.
func (d *Document) Get(path ...any) any { return decoded(d.peek(path...)) }

// peek returns the value at a path. If no path has led into the value, it stays text: an opened list of
// short arguments takes more memory than the webhook's estimate has for them.
func (d *Document) peek(path ...any) any {
	if len(path) == 0 {
		return d.root
	}
	key, ok := path[len(path)-1].(string)
	if !ok {
		return d.at(path...)
	}
	object, _ := d.at(path[:len(path)-1]...).(map[string]any)
	return object[key]
}

// Set sets the member at a path to a value, and adds each JSON object that is missing on
// the path. The path must end in a key, and every array element on the path must exist.
func (d *Document) Set(value any, path ...any) {
	text := marshal(value)
	if there := d.peek(path...); absent(there) || !reflect.DeepEqual(decoded(there), decode(text)) {
		d.write(text, path...)
	}
}

// Remove removes the member at a path, if the object has the member.
func (d *Document) Remove(path ...any) {
	last := len(path) - 1
	key := path[last].(string)
	object, _ := d.at(path[:last]...).(map[string]any)
	if _, there := object[key]; there {
		delete(object, key)
		d.record("remove", nil, path...)
	}
}

// Index looks in the array at a path for the first element whose member has the value, and
// returns the index of that element.
func (d *Document) Index(member, value string, path ...any) (int, bool) {
	list, ok := d.at(path...).(*array)
	if !ok {
		return 0, false
	}
	i := slices.IndexFunc(list.elements, func(element any) bool { return word(element, member) == value })
	return max(i, 0), i >= 0
}

// word returns the string in a member of an object, or an empty text. An object that is still text stays text.
func word(object any, key string) string {
	var found any
	switch object := object.(type) {
	case map[string]any:
		found = object[key]
	case json.RawMessage:
		if object[0] != '{' {
			return ""
		}
		for k, member := range members(object) {
			if string(k) == key || !simple(k) && unquoted(k) == key {
				found = json.RawMessage(member)
			}
		}
	}
	text, _ := decoded(found).(string)
	return text
}

// Ensure puts a value into the array at a path. The argument "member" is the key that identifies
// elements, such as "name". If an element and the value agree in this member, the element
// gets every member of the value. The element keeps its other members, such as defaults,
// and mounts from other injectors. If no element agrees, the function appends the value.
func (d *Document) Ensure(member string, value any, path ...any) {
	text := json.RawMessage(marshal(value))
	i, ok := d.Index(member, word(text, member), path...)
	if !ok {
		d.push(text, path...)
		return
	}
	d.Merge(text, append(slices.Clip(path), i)...)
}

// Merge gives the object at a path every member of a value, which is a JSON object. The object keeps its
// other members.
func (d *Document) Merge(value any, path ...any) {
	wanted := opened(json.RawMessage(marshal(value))).(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		at := append(slices.Clip(path), key)
		if !covers(d.Get(at...), decoded(wanted[key])) {
			d.write(wanted[key].(json.RawMessage), at...)
		}
	}
}

// Replace makes a value the only element of the array at a path that agrees with it in a member, and
// that element has no other members. The array keeps its other elements.
func (d *Document) Replace(member string, value any, path ...any) {
	text := json.RawMessage(marshal(value))
	var found []int
	if list, ok := d.at(path...).(*array); ok {
		for i, element := range list.elements {
			if word(element, member) == word(text, member) {
				found = append(found, i)
			}
		}
		if len(found) == 1 && reflect.DeepEqual(decoded(list.elements[found[0]]), decode(text)) {
			return
		}
		for _, i := range slices.Backward(found) {
			list.elements = slices.Delete(list.elements, i, i+1)
			d.record("remove", nil, append(slices.Clip(path), i)...)
		}
	}
	d.push(text, path...)
}

// Insert inserts a value into the array at a path, before the element at an index.
func (d *Document) Insert(value any, index int, path ...any) {
	text := json.RawMessage(marshal(value))
	list := d.at(path...).(*array)
	list.elements = slices.Insert(list.elements, index, any(text))
	d.record("add", text, append(slices.Clip(path), index)...)
}

// Move moves an element of the array at a path in front of the element at an earlier index. What the element
// contains stays as it was written.
func (d *Document) Move(from, to int, path ...any) {
	list := d.at(path...).(*array)
	element := list.elements[from]
	list.elements = slices.Delete(list.elements, from, from+1)
	d.record("remove", nil, append(slices.Clip(path), from)...)
	d.Insert(element, to, path...)
}

// push appends a value to the array at a path, and makes the array if there is none.
func (d *Document) push(text json.RawMessage, path ...any) {
	list, ok := d.at(path...).(*array)
	if !ok || len(list.elements) == 0 {
		d.write(slices.Concat([]byte{'['}, text, []byte{']'}), path...)
		return
	}
	list.elements = append(list.elements, text)
	d.record("add", text, append(slices.Clip(path), "-")...)
}

// write sets the member at a path to the text. Each caller has checked that the member lacks
// this value.
func (d *Document) write(text json.RawMessage, path ...any) {
	last := len(path) - 1
	for ; last > 0 && absent(d.at(path[:last]...)); last-- {
		text = marshal(map[string]json.RawMessage{path[last].(string): text})
	}
	operation, key := "add", path[last].(string)
	if object, ok := d.at(path[:last]...).(map[string]any); ok {
		if _, there := object[key]; there {
			operation = "replace"
		}
		object[key] = text
	}
	d.record(operation, text, path[:last+1]...)
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
