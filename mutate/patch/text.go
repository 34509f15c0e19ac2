// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
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
		text = append(text, `","path":"`...)
		text = append(appendQuoted(text, o.Path), '"')
		if o.Operation != "remove" {
			text = append(text, `,"value":`...)
			if raw, ok := o.Value.(json.RawMessage); ok {
				text = append(text, raw...)
			} else {
				text = append(text, marshal(o.Value)...)
			}
		}
		text = append(text, '}')
	}
	return append(text, ']')
}

// marshal returns the JSON text of a value that the webhook has made. Every such value can
// be encoded.
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

// marshalWords returns the text of a list of words. Each container has two such lists, its
// command and its arguments.
func marshalWords(words []string) []byte {
	text := append(make([]byte, 0, 128), '[') // as much as most commands need
	for i, word := range words {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendQuoted(append(text, '"'), word), '"')
	}
	return append(text, ']')
}

// appendQuoted appends the JSON text of a string, but not the two quotes around that text.
func appendQuoted(text []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			escaped, _ := json.Marshal(s) // every string can be encoded
			return append(text, escaped[1:len(escaped)-1]...)
		}
	}
	return append(text, s...)
}

// decoded returns the value of a JSON text, which the caller knows to be valid.
func decoded(text []byte) any {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		panic(fmt.Sprintf("text that was decoded before: %v", err))
	}
	return value
}

// isKey reports whether a text stands for a key. The text is the JSON of a string, without the two
// quotes.
func isKey(text []byte, key string) bool {
	return string(text) == key || bytes.IndexByte(text, '\\') >= 0 && unquoted(text) == key
}

// unquoted decodes the JSON text of a string. The argument lacks the two quotes of that text.
func unquoted(text []byte) string {
	if simple(text) {
		return string(text)
	}
	quoted := append(append([]byte{'"'}, text...), '"')
	return decoded(quoted).(string)
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
