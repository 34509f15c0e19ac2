// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
)

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
