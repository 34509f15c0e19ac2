// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

// nextPrefix begins the names of all next Leases.
const nextPrefix = "next."

// NextLease returns the name of the next Lease of a slot, which has the [Word] of each pod that speaks
// to the holder. No pod holds a slot by a next Lease, and no claim can name a next Lease.
func NextLease(slot string) string { return shortName(nextPrefix + slot) }

// IsNextLease reports whether a Lease has the name of a next Lease.
func IsNextLease(lease string) bool { return strings.HasPrefix(lease, nextPrefix) }

// hashMark stands before the hash that ends a shortened name. The letter x keeps the
// name valid if the cut has left a dash or a dot at the end.
const hashMark = "x-"

// hashBytes is the number of bytes that shortName takes from the SHA-256 hash of a name. By chance,
// two names practically never have the same 128 bits. Even if a person finds two such names, the
// only effect is that two workloads share a slot.
const hashBytes = 16

// endLength is the length of the end of a shortened name: hashMark, and two hexadecimal digits for
// each of the hashBytes bytes.
const endLength = len(hashMark) + 2*hashBytes

// shortName keeps a name within the limit for the names of objects, by the hash of
// the whole name. A shortened name has exactly as many bytes as the limit. shortName leaves
// a name unchanged only if the name is shorter than the limit. So an unchanged name never
// equals a shortened one.
func shortName(name string) string { return shorten(name, maxName) }

// shorten keeps a name within the limit as [shortName] does.
func shorten(name string, limit int) string {
	if len(name) < limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:limit-endLength] + hashMark + hex.EncodeToString(sum[:hashBytes])
}

// Pause is the value of [PausedAnnotation]; empty if the slot is not paused.
type Pause string

const (
	// PauseHold keeps every pod from acquiring the slot, but the holder of the slot continues to
	// hold.
	PauseHold Pause = "hold"
	// PauseStop keeps every pod from acquiring the slot, and makes the holder drain and release.
	PauseStop Pause = "stop"
	// PauseRecover has the effect of [PauseHold], also for agents of earlier versions. The
	// command "kubectl metaparticle recover" writes this value, and later removes it.
	PauseRecover Pause = "recover"
)

// PauseOf returns the pause in the annotations of a Lease. An annotation with an empty
// value means [PauseHold].
func PauseOf(annotations map[string]string) Pause {
	value, paused := annotations[PausedAnnotation]
	if paused && value == "" {
		return PauseHold
	}
	return Pause(value)
}

// Known reports whether this version of Metaparticle knows the value. An unknown value
// counts as [PauseHold] and not as [PauseStop]. So an unknown value never stops an application. A
// person can still write [PauseStop] to stop the application.
func (p Pause) Known() bool { return p == "" || p == PauseHold || p == PauseStop || p == PauseRecover }

// Yield is a request that the holder ends one hold, which the field Hold names. If the present hold
// has another number, the holder's agent ignores the yield. So an agent that reads a yield late
// does not end a later hold.
type Yield struct {
	// Hold is the number in [HoldAnnotation].
	Hold string
	// Successor is the identity of the pod that is to hold next; empty if any pod may hold next.
	Successor string
}

// ParseYield reads a value of [YieldAnnotation].
func ParseYield(value string) Yield {
	hold, successor, _ := strings.Cut(value, " ")
	return Yield{Hold: hold, Successor: successor}
}

// String returns the value of [YieldAnnotation]; empty for no yield.
func (y Yield) String() string {
	if y.Successor == "" {
		return y.Hold
	}
	return y.Hold + " " + y.Successor
}

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
