// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// These limits bound the bytes of a text that pods or their owners write. Agents write shorter texts.
const (
	// maxMessage bounds a message, or the cause of a handover.
	maxMessage = 1024
	// maxIdentity bounds a text with an identity: the name of a pod, and its uid.
	maxIdentity = 320
	// maxWord bounds every other text.
	maxWord = 256
	// maxDone and maxFailures bound a list of done keys, and a list of failures.
	maxDone, maxFailures = 4096, 1024
)

// OneLine replaces all characters that control a terminal, end a line or change the direction of a
// line. Pods or their owners write the text.
func OneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '?'
		}
		return r
	}, text)
}

// shortened returns the text in one line, with at most the given number of bytes.
func shortened(text string, most int) string {
	const mark = "…"
	if len(text) > most {
		end := most - len(mark)
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + mark
	}
	line := OneLine(text)
	if len(line) > most { // a malformed byte became a character of three bytes
		return shortened(line, most)
	}
	return line
}

// instant returns an instant that another computer wrote, in UTC; nil if JSON cannot express it.
func instant(at time.Time) *time.Time {
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return &at
}
