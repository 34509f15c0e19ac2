// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// object is one level of a JSON object, with undecoded values. Keys are case-sensitive, as in
// the API server, but unlike the keys of structs in encoding/json.
type object map[string]json.RawMessage

var errNoObject = errors.New("the value is no JSON object")

// split returns the fields of a JSON object, or nil for null. The text must be valid JSON without
// space around the value. The result shares the memory of the text. Package encoding/json would scan
// the text again at each level of the object, and copy each value.
func split(text []byte) (fields object, err error) {
	if string(text) != "null" {
		fields = make(object, 8)
	}
	err = each(text, func(key string, value json.RawMessage) error {
		fields[key] = value
		return nil
	})
	return fields, err
}

// each calls the function "take" with each field of a JSON object, until the first error. For null,
// each does nothing.
func each(text []byte, take func(key string, value json.RawMessage) error) error {
	if string(text) == "null" {
		return nil
	}
	if len(text) == 0 || text[0] != '{' {
		return errNoObject
	}
	for at := next(text, 1); text[at] != '}'; {
		end := skip(text, at)
		key, err := unquote(text[at:end])
		if err != nil {
			return err
		}
		at = next(text, end)
		end = skip(text, at)
		if err := take(key, text[at:end:end]); err != nil {
			return err
		}
		at = next(text, end)
	}
	return nil
}

// next returns the index of the next byte that is no space, comma or colon.
func next(text []byte, at int) int {
	for bytes.IndexByte([]byte(" \t\r\n,:"), text[at]) >= 0 {
		at++
	}
	return at
}

// skip returns the index after the value that begins at an index.
func skip(text []byte, at int) int {
	switch text[at] {
	case '"':
		for at++; text[at] != '"'; at++ {
			if text[at] == '\\' {
				at++
			}
		}
		return at + 1
	case '{', '[':
		for at = next(text, at+1); text[at] != '}' && text[at] != ']'; {
			at = next(text, skip(text, at))
		}
		return at + 1
	}
	if length := bytes.IndexAny(text[at:], " \t\r\n,:}]"); length >= 0 {
		return at + length
	}
	return len(text)
}

// unquote decodes a JSON string; null becomes an empty string. Nearly all strings of a Lease have
// neither escapes nor letters outside of ASCII, so their bytes are the result.
func unquote(value json.RawMessage) (string, error) {
	plain := value[0] == '"'
	for _, b := range value {
		plain = plain && b != '\\' && b < utf8.RuneSelf
	}
	if plain {
		return string(value[1 : len(value)-1]), nil
	}
	return unescape(value)
}

// unescape decodes any JSON string.
func unescape(value json.RawMessage) (text string, err error) {
	err = json.Unmarshal(value, &text)
	return text, err
}

// unquoteAll decodes a JSON object whose values are strings; null becomes nil.
func unquoteAll(value json.RawMessage) (texts map[string]string, err error) {
	if string(value) != "null" {
		texts = make(map[string]string, 8)
	}
	err = each(value, func(key string, field json.RawMessage) error {
		texts[key], err = unquote(field)
		return err
	})
	return texts, err
}
