// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import "iter"

// The functions of this file read text that is valid JSON. They allocate nothing for the
// text that they pass over.

// members returns the keys, without quotes, and the values of an object.
func members(text []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func([]byte, []byte) bool) {
		for i := space(text, space(text, 0)+1); text[i] != '}'; {
			end := skip(text, i)
			key := text[i+1 : end-1]
			i = space(text, space(text, end)+1) // past the colon
			end = skip(text, i)
			if !yield(key, text[i:end:end]) {
				return
			}
			if i = space(text, end); text[i] == ',' {
				i = space(text, i+1)
			}
		}
	}
}

// elements returns the elements of an array.
func elements(text []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := space(text, space(text, 0)+1); text[i] != ']'; {
			end := skip(text, i)
			if !yield(text[i:end:end]) {
				return
			}
			if i = space(text, end); text[i] == ',' {
				i = space(text, i+1)
			}
		}
	}
}

// space returns the index of the next byte, from i on, that is not a space.
func space(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r' {
		i++
	}
	return i
}

// skip returns the end of the value that begins at i.
func skip(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // a number ends where its object or array ends
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
