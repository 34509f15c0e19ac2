// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"unicode"
)

// line is a line of prose.
type line struct {
	number int
	text   string
}

// sentence is a sentence, and the line on which the sentence begins.
type sentence struct {
	line int
	text string
}

// words returns the number of words. A dash alone does not count.
func (s sentence) words() int {
	n := 0
	for field := range strings.FieldsSeq(s.text) {
		if strings.ContainsFunc(field, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}

var (
	item    = regexp.MustCompile(`^\s*(?:[-*+:]|\d+\.)\s+`)
	link    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	code    = regexp.MustCompile("`[^`]*`")
	divider = regexp.MustCompile(`^[|:\- ]+$`)
)

// blocks groups lines into paragraphs, items of lists, terms, definitions and cells of tables. No
// sentence goes beyond its block. Headings and code are in no block.
func blocks(lines []line) [][]line {
	var all [][]line
	var open []line
	end := func() {
		if len(open) > 0 {
			all = append(all, open)
		}
		open = nil
	}
	fenced := false
	for _, l := range lines {
		text := strings.TrimSpace(l.text)
		fence := strings.HasPrefix(text, "```")
		if fence {
			fenced = !fenced
		}
		switch {
		case fence, fenced, text == "", strings.HasPrefix(text, "#"), strings.HasPrefix(text, "<!--"), strings.HasPrefix(l.text, "\t"):
			end()
		case strings.HasPrefix(text, "|"):
			end()
			if !divider.MatchString(text) {
				for cell := range strings.SplitSeq(strings.Trim(text, "|"), "|") {
					open = []line{{l.number, cell}}
					end()
				}
			}
		case item.MatchString(l.text):
			end()
			open = []line{{l.number, item.ReplaceAllString(l.text, "")}}
		default:
			open = append(open, l)
		}
	}
	end()
	return all
}

// sentences splits the lines of a text into sentences.
func sentences(lines []line) []sentence {
	var all []sentence
	for _, block := range blocks(lines) {
		all = append(all, split(block)...)
	}
	return all
}

// split splits a block into sentences. A piece of code counts as one word. The address of
// a link does not count.
func split(block []line) []sentence {
	type word struct {
		line int
		text string
	}
	var words []word
	for _, l := range block {
		text := link.ReplaceAllString(l.text, "$1")
		text = code.ReplaceAllStringFunc(text, func(c string) string { return strings.ReplaceAll(c, " ", "_") })
		for field := range strings.FieldsSeq(text) {
			words = append(words, word{l.number, field})
		}
	}
	var all []sentence
	var open []string
	first := 0
	for i, w := range words {
		if len(open) == 0 {
			first = w.line
		}
		open = append(open, w.text)
		if i+1 == len(words) || ends(w.text) && begins(words[i+1].text) {
			all = append(all, sentence{first, strings.Join(open, " ")})
			open = nil
		}
	}
	return all
}

// ends reports whether a sentence may end with the word.
func ends(word string) bool {
	word = strings.TrimRight(word, "\"')]*_`”»")
	switch strings.ToLower(strings.TrimLeft(word, "(\"")) {
	case "e.g.", "i.e.", "vs.", "cf.":
		return false
	}
	return strings.HasSuffix(word, ".") || strings.HasSuffix(word, "!") || strings.HasSuffix(word, "?")
}

// begins reports whether a sentence may begin with the word. Sentences begin with a
// capital, with a piece of code, or with a name of the code ("startsBy returns …").
func begins(word string) bool {
	word = strings.TrimLeft(word, "\"'([*_“«")
	return strings.HasPrefix(word, "`") || strings.ContainsFunc(word, unicode.IsUpper) || strings.ContainsAny(word, "/[(")
}
