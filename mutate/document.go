// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

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

// document is a JSON object being patched: each change is made to it and
// recorded. Values that are there and never named by a change never appear in
// the patch, whether or not this build knows what they are.
type document struct {
	root node
	ops  []jsonpatch.Operation
}

var errNoObject = errors.New("not a JSON object")

// open takes text that was decoded before: it has to be valid JSON.
func open(raw []byte) (*document, error) {
	if !isObject(raw) {
		return nil, errNoObject
	}
	return &document{root: node{text: raw}}, nil
}

// at is the node at a path of keys (string) and indices (int), or nil.
func (d *document) at(path ...any) *node {
	at := &d.root
	for _, step := range path {
		if at = at.child(step); at == nil {
			return nil
		}
	}
	return at
}

// get is the value at a path, or nil.
func (d *document) get(path ...any) any { return d.at(path...).value() }

// set makes the member at a path have a value. Objects on the way that are not
// there are made. The path ends in a key and does not lead through an array's
// end.
func (d *document) set(value any, path ...any) {
	text := marshal(value)
	if there := d.at(path...); there.absent() || !reflect.DeepEqual(there.value(), decoded(text)) {
		d.put(text, path...)
	}
}

// put is set for a value that is known to be another one.
func (d *document) put(text []byte, path ...any) {
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

// remove takes the member at a path away, if it is there.
func (d *document) remove(path ...any) {
	if parent := d.at(path[:len(path)-1]...); parent != nil && parent.remove(path[len(path)-1].(string)) {
		d.record("remove", nil, path...)
	}
}

// push puts a value at the end of the array at a path.
func (d *document) push(text []byte, path ...any) {
	array := d.at(path...)
	if array.element(0) == nil {
		d.put(slices.Concat([]byte{'['}, text, []byte{']'}), path...)
		return
	}
	array.elements = append(array.elements, node{text: text})
	d.record("add", json.RawMessage(text), append(slices.Clip(path), "-")...)
}

// insert puts a value into the array at a path, before the element at an index.
func (d *document) insert(value any, index int, path ...any) {
	text := marshal(value)
	array := d.at(path...)
	array.unfold()
	array.elements = slices.Insert(array.elements, index, node{text: text})
	d.record("add", json.RawMessage(text), append(slices.Clip(path), index)...)
}

// cut takes an element out of the array at a path.
func (d *document) cut(index int, path ...any) {
	array := d.at(path...)
	array.unfold()
	array.elements = slices.Delete(array.elements, index, index+1)
	d.record("remove", nil, append(slices.Clip(path), index)...)
}

// index finds the element of the array at a path whose member has a value.
func (d *document) index(member, value string, path ...any) (int, bool) {
	array := d.at(path...)
	for i := 0; array.element(i) != nil; i++ {
		if array.element(i).word(member) == value {
			return i, true
		}
	}
	return 0, false
}

// ensure makes the named element of an array have every member of a value, and
// adds it at the end if it is not there. Members that others have put there
// (defaults, mounts and variables of other injectors) are left alone.
func (d *document) ensure(member string, value any, path ...any) {
	text := marshal(value)
	object := node{text: text}
	i, ok := d.index(member, object.word(member), path...)
	if !ok {
		d.push(text, path...)
		return
	}
	wanted := object.value().(map[string]any)
	for _, key := range sortedKeys(wanted) {
		at := append(slices.Clip(path), i, key)
		if !covers(d.get(at...), wanted[key]) {
			d.put(object.member(key).text, at...)
		}
	}
}

// covers: everything that wanted has is there. Lists of objects are compared
// as sets, others as they are.
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
			if !coversAny(array, value) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(there, wanted)
	}
}

func coversAny(array []any, wanted any) bool {
	for _, element := range array {
		if covers(element, wanted) {
			return true
		}
	}
	return false
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

func (d *document) record(operation string, value any, path ...any) {
	var pointer strings.Builder
	pointer.Grow(64) // as much as most need
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
	d.ops = append(d.ops, jsonpatch.NewOperation(operation, pointer.String(), value))
}

// escape makes a key part of a JSON pointer.
var escape = strings.NewReplacer("~", "~0", "/", "~1")
