// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package load

// weight counts what a decoder makes of a body.
type weight struct {
	// objects are elements of arrays, whatever they are, and objects. A decoder makes
	// a whole container of each element of a list of containers, even of a number.
	objects int
	// members are those of objects.
	members int
	// words are strings in a list that can hold nothing else.
	words int
}

// weigh counts in one pass. Text that is no JSON may have any weight: a decoder refuses the
// text before the decoder makes something of a part.
func weigh(text []byte) weight {
	var w weight
	var key []byte  // is the last string
	var before byte // is the last byte that is not a space, and outside of strings
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case ' ', '\n', '\t', '\r':
			continue
		case '"':
			begin := i + 1
			i = closing(text, begin)
			key = text[begin:i]
		case ',':
			w.objects++ // the colon of a member counts against the comma
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
				words, end := countWords(text, i+1)
				w.words += words
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
	// Each comma, and each beginning, is of an element or of a member.
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

// follows reports whether a byte comes right after the one at i.
func follows(text []byte, i int, c byte) bool { return i+1 < len(text) && text[i+1] == c }

// holdsWords reports whether a field is a list of strings in every object that has the
// field. These are the lists that may be long in an object that the API server takes.
func holdsWords(key []byte) bool {
	switch string(key) {
	case "args", "command", "finalizers":
		return true
	}
	return false
}

// countWords counts the strings at the beginning of a list, with their commas, and
// returns where they end.
func countWords(text []byte, i int) (words, end int) {
	i = spaces(text, i)
	for i < len(text) && text[i] == '"' {
		words++
		i = spaces(text, closing(text, i+1)+1)
		if i < len(text) && text[i] == ',' {
			i = spaces(text, i+1)
		}
	}
	return words, min(i, len(text))
}

// spaces returns the index of the next byte, from i on, that is no space. The text may end
// before.
func spaces(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}
