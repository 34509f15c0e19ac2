// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"fmt"
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
	root any
	ops  []jsonpatch.Operation
}

func open(raw []byte) (*document, error) {
	var root map[string]any
	if err := json.Unmarshal(raw, &root); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	return &document{root: root}, nil
}

// get is the value at a path of keys (string) and indices (int), or nil.
func (d *document) get(path ...any) any {
	at := d.root
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, _ := at.(map[string]any)
			at = object[step]
		case int:
			array, _ := at.([]any)
			if step >= len(array) {
				return nil
			}
			at = array[step]
		}
	}
	return at
}

// set makes the member at a path have a value. Objects on the way that are not
// there are made. The path ends in a key and does not lead through an array's
// end.
func (d *document) set(value any, path ...any) {
	value = plain(value)
	if reflect.DeepEqual(d.get(path...), value) {
		return
	}
	for i := 1; i < len(path); i++ {
		if d.get(path[:i]...) == nil {
			for j := len(path) - 1; j >= i; j-- {
				value = map[string]any{path[j].(string): value}
			}
			path = path[:i]
			break
		}
	}
	parent := d.get(path[:len(path)-1]...).(map[string]any)
	key := path[len(path)-1].(string)
	operation := "add"
	if _, ok := parent[key]; ok {
		operation = "replace"
	}
	parent[key] = value
	d.record(operation, value, path...)
}

// remove takes the member at a path away, if it is there.
func (d *document) remove(path ...any) {
	parent, _ := d.get(path[:len(path)-1]...).(map[string]any)
	key := path[len(path)-1].(string)
	if _, ok := parent[key]; !ok {
		return
	}
	delete(parent, key)
	d.record("remove", nil, path...)
}

// push puts a value at the end of the array at a path.
func (d *document) push(value any, path ...any) {
	array, ok := d.get(path...).([]any)
	if !ok || len(array) == 0 {
		d.set([]any{plain(value)}, path...)
		return
	}
	value = plain(value)
	parent := d.get(path[:len(path)-1]...).(map[string]any)
	parent[path[len(path)-1].(string)] = append(array, value)
	d.record("add", value, append(slices.Clip(path), "-")...)
}

// insert puts a value into the array at a path, before the element at an index.
func (d *document) insert(value any, index int, path ...any) {
	value = plain(value)
	parent := d.get(path[:len(path)-1]...).(map[string]any)
	key := path[len(path)-1].(string)
	parent[key] = slices.Insert(parent[key].([]any), index, value)
	d.record("add", value, append(slices.Clip(path), index)...)
}

// cut takes an element out of the array at a path.
func (d *document) cut(index int, path ...any) {
	parent := d.get(path[:len(path)-1]...).(map[string]any)
	key := path[len(path)-1].(string)
	parent[key] = slices.Delete(parent[key].([]any), index, index+1)
	d.record("remove", nil, append(slices.Clip(path), index)...)
}

// index finds the element of the array at a path whose member has a value.
func (d *document) index(member, value string, path ...any) (int, bool) {
	array, _ := d.get(path...).([]any)
	for i, element := range array {
		if object, _ := element.(map[string]any); object[member] == value {
			return i, true
		}
	}
	return 0, false
}

// ensure makes the named element of an array have every member of a value, and
// adds it at the end if it is not there. Members that others have put there
// (defaults, mounts and variables of other injectors) are left alone.
func (d *document) ensure(member string, value any, path ...any) {
	object := plain(value).(map[string]any)
	i, ok := d.index(member, object[member].(string), path...)
	if !ok {
		d.push(object, path...)
		return
	}
	for _, key := range sortedKeys(object) {
		at := append(slices.Clip(path), i, key)
		if !covers(d.get(at...), object[key]) {
			d.set(object[key], at...)
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

func (d *document) record(operation string, value any, path ...any) {
	var pointer strings.Builder
	for _, step := range path {
		pointer.WriteByte('/')
		switch step := step.(type) {
		case string:
			pointer.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
		case int:
			pointer.WriteString(strconv.Itoa(step))
		}
	}
	// A value of the document may change later on; the operation's must not.
	d.ops = append(d.ops, jsonpatch.NewOperation(operation, pointer.String(), plain(value)))
}

// plain is a value as JSON has it: maps, slices, strings, numbers. Only values
// of our own making get here, and those can be marshalled.
func plain(value any) any {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", value, err))
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		panic(fmt.Sprintf("unmarshal %T: %v", value, err))
	}
	return v
}
