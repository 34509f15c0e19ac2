// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"unicode"
)

// mostShown bounds the part of a key or value that an error message shows. Every valid key
// fits: our prefix has 16 bytes, and Kubernetes allows 63 bytes for the name after the
// prefix.
const mostShown = 80

// cutMark ends a text that was cut.
const cutMark = "…"

// Brief returns the text unchanged if the text has at most the given number of bytes. Otherwise,
// Brief cuts the text to at most that size, between two characters. The result of a cut ends with
// "…". A webhook sees an object before the API server has validated it, so a name may be as long as
// a request.
func Brief(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(cutMark)], "") + cutMark
}

// ControlsTerminal reports whether a character controls a terminal, ends a line, or changes the
// direction of a line. Pods or their owners can write such a character.
func ControlsTerminal(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// OneLine replaces all characters of a text that control a terminal ([ControlsTerminal]).
func OneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if ControlsTerminal(r) {
			return '?'
		}
		return r
	}, text)
}

// Shortened returns the text in one line, with at most the given number of bytes.
func Shortened(text string, most int) string {
	line := OneLine(Brief(text, most))
	if len(line) > most { // a malformed byte became a character of three bytes
		return Shortened(line, most)
	}
	return line
}

func brief(text string) string { return Brief(text, mostShown) }
