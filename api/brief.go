// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

// mostShown bounds the part of a key or value that a message shows. The longest key
// that Kubernetes allows has 79 bytes: the prefix, and a name of 63.
const mostShown = 80

// cutMark ends a text that was cut.
const cutMark = "…"

// Brief cuts text to at most the given number of bytes, never inside of a character,
// and adds a mark. A webhook sees an object before the API server has validated it, so
// a name may be as long as a request.
func Brief(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(cutMark)], "") + cutMark
}

func brief(text string) string { return Brief(text, mostShown) }
