// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"strconv"
	"strings"
)

// longest is the largest number of characters in the message of a pod condition or of an Event. The
// policy on Events admits no longer message.
const longest = 1024

// printable returns the text as people may see it. Texts of other programs can be part of a message,
// such as the identity of another program's elector. So printable replaces each character that cannot
// be printed by a space, and cuts a text that is too long.
func printable(text string) string { return clean(text, "") }

// printableLines returns the text as printable does, but keeps the ends of lines.
func printableLines(text string) string { return clean(text, "\n") }

// clean replaces each character that can neither be printed nor is to be kept, and cuts a text that is
// too long.
func clean(text, keep string) string {
	text = strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return ' '
	}, text)
	if len(text) <= longest {
		return text
	}
	characters := []rune(text)
	if len(characters) <= longest {
		return text
	}
	return string(characters[:longest-1]) + "…"
}
