// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"encoding/json"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
)

// Length returns the number of bytes in the paths and values of the operations.
func Length(operations []jsonpatch.Operation) int {
	length := 0
	for _, o := range operations {
		raw, _ := o.Value.(json.RawMessage) // each value in the operations of a Document is raw
		length += len(o.Path) + len(raw)
	}
	return length
}

// Text returns the operations as the text of a JSON patch.
func Text(operations []jsonpatch.Operation) []byte {
	text := append(make([]byte, 0, 8<<10), '[') // as much as most patches need
	for i, o := range operations {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, `{"op":"`...)
		text = append(text, o.Operation...)
		text = append(text, `","path":`...)
		text = append(text, marshal(o.Path)...)
		if raw, ok := o.Value.(json.RawMessage); ok {
			text = append(text, `,"value":`...)
			text = append(text, raw...)
		}
		text = append(text, '}')
	}
	return append(text, ']')
}

// marshal returns the JSON text of a value that the webhook has made. Every such value can
// be encoded.
func marshal(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", value, err))
	}
	return text
}

// decode returns the value of a JSON text, which the caller knows to be valid.
func decode(text []byte) any {
	if len(text) > 1 && text[0] == '"' {
		return unquoted(text[1 : len(text)-1])
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		panic(fmt.Sprintf("text that was decoded before: %v", err))
	}
	return value
}

// unquoted decodes the JSON text of a string. The argument lacks the two quotes of that text.
func unquoted(text []byte) string {
	if simple(text) {
		return string(text)
	}
	quoted := append(append([]byte{'"'}, text...), '"')
	var word string
	if err := json.Unmarshal(quoted, &word); err != nil {
		panic(fmt.Sprintf("text that was decoded before: %v", err))
	}
	return word
}

// simple reports whether a text has no escape, and no character that a decoder could replace.
func simple(text []byte) bool {
	for _, c := range text {
		if c == '\\' || c > '~' {
			return false
		}
	}
	return true
}
