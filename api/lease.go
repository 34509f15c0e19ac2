// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
)

// nextPrefix begins the names of all next Leases.
const nextPrefix = "next."

// NextLease returns the name of the next Lease of a slot. A pod of a newer revision writes
// its identity into the next Lease to ask the holder to yield. No pod holds a slot by a
// next Lease, and no claim can name a next Lease.
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

// MostOffers bounds the number of pods that offer to stay Ready while the holder leaves its
// Services. Even if one of these pods becomes the successor, two others forward. More offers would
// only cost writes.
const MostOffers = 3

// Awaits is the end of the field Leave of [Offers] if the holder's agent knows the field Prepared of
// [Offer]. To an agent of an earlier version, an offer with Prepared would end the ask of another
// pod. Then that holder would give up its leave for the turn.
const Awaits = ".="

// Offers has the standbys that offer to stay Ready, and to forward connections, while the
// holder leaves its Services.
type Offers struct {
	// Leave identifies the occasion on which the holder leaves: the number of its hold. An
	// agent process that has resumed the hold adds another number. So offers to the earlier
	// process of the agent are not valid. The text ends with [Awaits].
	Leave string
	Pods  []Offer
}

// Offer is one pod's offer.
type Offer struct {
	// Identity is the identity of the pod that offers.
	Identity string
	// Takes reports that the pod can also be the holder's successor.
	Takes bool
	// Prepared reports that the holder's application may stop, as far as this pod is concerned. The
	// successor is prepared once no node sends it connections. Every other pod is prepared once it
	// lets new connections wait. A pod is never prepared before the holder has named its successor, so
	// an offer with Prepared lacks Takes.
	Prepared bool
}

// takes is the character that stands before the identity of a pod that can be the successor. The
// character prepared stands there instead once the field Prepared is true. No pod's name contains one
// of these characters.
const takes, prepared = "+", "="

// String returns the value of [OffersAnnotation]: the text of Leave, and then the identities. The
// character [takes] stands before the identity of each pod that can be the successor. The character
// [prepared] stands before the identity of each pod that is prepared.
func (o Offers) String() string {
	words := []string{o.Leave}
	for _, pod := range o.Pods {
		word := pod.Identity
		switch {
		case pod.Prepared:
			word = prepared + word
		case pod.Takes:
			word = takes + word
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// LongestLeave bounds the field Leave of [Offers], in bytes. The text of each agent fits: 16 digits of
// a hold, a dot, a number of milliseconds, and [Awaits].
const LongestLeave = 40

// longestOffers bounds the text of offers, in bytes. The text of [MostOffers] offers fits: an
// identity has at most 290 bytes, and the field Leave has at most [LongestLeave]. The
// holder copies identities from this text into annotations of its Lease. All annotations of an
// object together have room for 256 KiB, so the bound is necessary.
const longestOffers = 2048

// ParseOffers reads the text of [Offers.String]. ParseOffers returns no offers for a
// text that is too long, or has too many words. Of the offers of one pod only the first counts. As in
// the policy on Leases, only a space separates two words. A tab does not.
func ParseOffers(s string) Offers {
	if len(s) > longestOffers {
		return Offers{}
	}
	words := strings.Split(s, " ")
	if len(words) > 1+MostOffers || slices.Contains(words, "") {
		return Offers{}
	}
	o := Offers{Leave: words[0]}
	for _, word := range words[1:] {
		word, isPrepared := strings.CutPrefix(word, prepared)
		identity, canTake := strings.CutPrefix(word, takes)
		if !o.Of(identity) {
			o.Pods = append(o.Pods, Offer{Identity: identity, Takes: canTake, Prepared: isPrepared})
		}
	}
	return o
}

// Of reports whether the pod is among the offers.
func (o Offers) Of(identity string) bool {
	return slices.ContainsFunc(o.Pods, func(pod Offer) bool { return pod.Identity == identity })
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
