// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package load

import "bytes"

// weight counts the parts of a body for which a decoder allocates memory.
type weight struct {
	// objects counts the JSON objects, and each other element of an array that the field "words"
	// does not count. In a pod's list of containers, a decoder allocates a whole Container for
	// each element, even for a number.
	objects int
	// members counts the members of JSON objects.
	members int
	// words counts the strings in lists of strings.
	words int
	// nested counts the elements and members of JSON inside of strings.
	nested int
	// escapes counts the characters for which the encoder of JSON writes an escape, although a
	// JSON text may contain these characters as they are.
	escapes int
}

// weigh returns the weight of a text. Malformed JSON may have any weight,
// because a decoder refuses the text before it decodes a part.
func weigh(text []byte) weight {
	w := weight{escapes: bytes.Count(text, []byte("<")) + bytes.Count(text, []byte(">")) + bytes.Count(text, []byte("&"))}
	var key []byte  // the last string that was read
	var before byte // the last byte that is neither a space nor in a string
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\n', '\t', '\r':
			continue
		case '"':
			begin := i + 1
			i = closing(text, begin)
			key = text[begin:i]
			w.nested += countNested(key)
		case ',':
			w.objects++ // the code after the loop subtracts the members of JSON objects
		case ':':
			w.members++
		case '{':
			if before == ':' {
				w.objects++
			}
			if !follows(text, i, '}') {
				w.objects++
			}
		case '[':
			if before == ':' && holdsWords(key) {
				words, nested, end := countWords(text, i+1)
				w.words += words
				w.nested += nested
				i = end - 1
				if follows(text, i, ']') {
					break
				}
			}
			if !follows(text, i, ']') {
				w.objects++
			}
		}
		before = c
	}
	// So far, w.objects also counts each member, by the comma or the brace in front of the
	// member.
	w.objects -= w.members
	return w
}

// closing returns the index of the quote that ends a string.
func closing(text []byte, i int) int {
	for ; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return min(i, len(text))
}

// follows reports whether the byte right after index i is c.
func follows(text []byte, i int, c byte) bool { return i+1 < len(text) && text[i+1] == c }

// holdsWords reports whether a field is a list of strings in every JSON object that has the
// field. Objects that the API server accepts have long lists of strings only in these fields.
func holdsWords(key []byte) bool {
	switch string(key) {
	case "args", "command", "finalizers":
		return true
	}
	return false
}

// countNested counts the elements and the members of the JSON that a string may contain, by the
// commas between them. The gate's own arguments contain JSON, which the webhook decodes if a gated
// pod passes the webhook again. Each such argument begins with a dash. A caller may write the dash
// or a comma as an escape, so each escape counts as a comma.
func countNested(word []byte) int {
	if len(word) == 0 || word[0] != '-' && word[0] != '\\' {
		return 0
	}
	return bytes.Count(word, []byte(",")) + bytes.Count(word, []byte(`\u`))
}

// countWords counts the strings at the beginning of a list. The result "nested" is the sum of the
// results of countNested for these strings. The result "end" is the index at which the rest of the
// list begins.
func countWords(text []byte, i int) (words, nested, end int) {
	i = spaces(text, i)
	for i < len(text) && text[i] == '"' {
		words++
		quote := closing(text, i+1)
		nested += countNested(text[i+1 : quote])
		i = spaces(text, quote+1)
		if i < len(text) && text[i] == ',' {
			i = spaces(text, i+1)
		}
	}
	return words, nested, min(i, len(text))
}

// spaces returns the index of the first byte from i on that is not a space. If all these bytes are
// spaces, the result is the length of the text.
func spaces(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}
