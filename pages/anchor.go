// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"strconv"
	"strings"
	"unicode"
)

// anchors is the set of the anchors on one page.
type anchors map[string]bool

// add returns the anchor that GitHub gives to a heading. If headings have the same text, the
// anchor of each further heading ends with a number.
func (a anchors) add(heading string) string {
	plain := slug(heading)
	anchor := plain
	for n := 1; a[anchor]; n++ {
		anchor = plain + "-" + strconv.Itoa(n)
	}
	a[anchor] = true
	return anchor
}

// slug returns the text in lower case, without punctuation, and with hyphens for spaces.
func slug(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}
