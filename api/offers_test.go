// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOffersSurviveARoundTrip(t *testing.T) {
	for text, want := range map[string]Offers{
		"":               {},
		"h1":             {Leave: "h1"},
		"h1 +a_u b_u":    {Leave: "h1", Pods: []Offer{{Identity: "a_u", Takes: true}, {Identity: "b_u"}}},
		"h1 =a_u b_u":    {Leave: "h1", Pods: []Offer{{Identity: "a_u", Prepared: true}, {Identity: "b_u"}}},
		"h1 a b c":       {Leave: "h1", Pods: []Offer{{Identity: "a"}, {Identity: "b"}, {Identity: "c"}}},
		"h1 a b c d e f": {},
	} {
		got := ParseOffers(text)
		assert.Equal(t, want, got, text)
		if want.Leave != "" {
			assert.Equal(t, text, got.String())
		}
	}
	assert.True(t, ParseOffers("h +a_u").Of("a_u"))
	assert.False(t, ParseOffers("h +a_u").Of("h"))
}

func TestOverlongOffersAnnotationIsIgnored(t *testing.T) {
	assert.Empty(t, ParseOffers("h +"+strings.Repeat("a", longestOffers)))
}

// The policy on Leases lets a pod write only its own identity into a word.
func TestOnlySpaceSeparatesWordsOfOffers(t *testing.T) {
	for _, space := range []string{"\t", "\n", "\v", "\f", "\r", "\u0085", "\u00a0", "\u2003"} {
		assert.Empty(t, ParseOffers("h1"+space+"=a_u"+space+"+b_u").Pods, "%q", space)
	}
	assert.Empty(t, ParseOffers(" h1 a_u"))
	assert.Empty(t, ParseOffers("h1  a_u"))
}

// A pod could otherwise be both the successor and the pod that stays Ready beside the successor.
func TestOnePodMakesOneOffer(t *testing.T) {
	assert.Equal(t, []Offer{{Identity: "a_u", Takes: true}, {Identity: "b_u"}}, ParseOffers("h1 +a_u =a_u b_u").Pods)
}
