// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"slices"
	"strings"
	"unicode"
)

// These are the names of the rules in limits.txt and in the command's output.
const (
	// long marks a sentence of more than 25 words.
	long = "long"
	// subject marks a sentence that begins with who, what, one or it. The subject of such a
	// sentence is not in the vocabulary.
	subject = "subject"
	// noun marks a function whose comment says what the function is. Such a comment begins
	// "startsBy is …" instead of "startsBy returns …".
	noun = "noun"
	// name marks a test name of more than eight words.
	name = "name"
)

// rules lists the rules in the order of the columns in limits.txt and in the command's output.
var rules = []string{long, subject, noun, name}

const (
	mostWords     = 25
	mostNameWords = 8
)

// finding is one place that breaks one rule.
type finding struct {
	file string // the path of the file, from the root of the repository
	line int
	rule string
	text string
}

func (f finding) folder() string { return path.Dir(f.file) }

// judge returns the rules that a sentence breaks.
func judge(s sentence) []string {
	var broken []string
	if s.words() > mostWords {
		broken = append(broken, long)
	}
	if s.hidesItsSubject() {
		broken = append(broken, subject)
	}
	return broken
}

// hidesItsSubject reports whether the sentence begins with who, what, one or it. A question may
// begin with these words. The word "one" is allowed as a number: "One pod holds …".
func (s sentence) hidesItsSubject() bool {
	if strings.HasSuffix(s.text, "?") {
		return false
	}
	fields := strings.Fields(s.text)
	switch bare(fields[0]) {
	case "who", "what", "it", "it's":
		return true
	case "one":
		return strings.HasSuffix(fields[0], ",") || len(fields) > 1 && slices.Contains(afterPronoun, fields[1])
	}
	return false
}

// afterPronoun are words that follow the pronoun "one", but not the number "one".
var afterPronoun = strings.Fields("of that who which whose is was has had can may must might will would does did and or " +
	"for in on with without from at by to than as made put taken found")

// bare returns the word in lower case, without the punctuation around it.
func bare(word string) string {
	return strings.ToLower(strings.TrimFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }))
}

// describesByNoun reports whether the comment of a function says what the function is,
// instead of what the function does.
func describesByNoun(function, comment string) bool {
	fields := strings.Fields(comment)
	return len(fields) > 1 && fields[0] == function &&
		slices.Contains([]string{"is", "are", "was", "were"}, strings.Trim(fields[1], ",:"))
}

// nameWords splits a CamelCase name into its words: "APIServer" has two.
func nameWords(name string) []string {
	var words []string
	runes := []rune(name)
	start := 0
	for i := 1; i < len(runes); i++ {
		upper := unicode.IsUpper(runes[i])
		begins := upper && !unicode.IsUpper(runes[i-1]) ||
			upper && i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if runes[i] == '_' || begins {
			words = append(words, strings.Trim(string(runes[start:i]), "_"))
			start = i
		}
	}
	words = append(words, strings.Trim(string(runes[start:]), "_"))
	return slices.DeleteFunc(words, func(word string) bool { return word == "" })
}
