// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWordsSurviveARoundTrip(t *testing.T) {
	newer := Word{Say: WantsNewer, Identity: "a_u", To: "h1", Revision: Revision{Workload: "w", Number: 2, Hash: "x"}, At: 3}
	for text, want := range map[string]Words{
		"":                          nil,
		"newer:a_u:h1:w/2/x:3":      {newer},
		"preferred:a_u:h1::0":       {{Say: WantsPreferred, Identity: "a_u", To: "h1"}},
		"takes:a_u:h1.7 stays:b:h1": {{Say: Takes, Identity: "a_u", To: "h1.7"}, {Say: Stays, Identity: "b", To: "h1"}},
		"prepared:a_u:h1.7 newer:b_u:h1:w/2/x:3": {
			{Say: Prepared, Identity: "a_u", To: "h1.7"},
			{Say: WantsNewer, Identity: "b_u", To: "h1", Revision: newer.Revision, At: 3},
		},
	} {
		got := ParseWords(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, text, got.String())
	}
}

func TestMalformedWordsAreLeftOut(t *testing.T) {
	kept := Words{{Say: Stays, Identity: "b_u", To: "h1"}}
	for _, text := range []string{
		"newer:a_u:h1", "newer:a_u:h1:w/2/x", "newer:a_u:h1:w/x:1", "newer:a_u:h1:w/2/x:many", "newer:a_u:h1:w/2/x:03", "newer:a_u:h1:w/2/x:+3", "stays:a_u:h1:w/2/x:1", "stays:a_u",
		"stays::h1", "stays:a_u:", "shouts:a_u:h1", "h1", "", "stays:a_u:" + strings.Repeat("h", LongestLeave+1),
	} {
		assert.Equal(t, kept, ParseWords(text+" stays:b_u:h1"), text)
	}
	assert.Empty(t, ParseWords("stays:"+strings.Repeat("a", longestWords)+":h1"))
	assert.Empty(t, ParseWords(strings.Repeat("stays:b_u:h1 ", MostWords)+"stays:b_u:h1"), "too many words")
}

// The policy on Leases lets a pod write only its own identity into a word.
func TestOnlySpaceSeparatesWords(t *testing.T) {
	for _, space := range []string{"\t", "\n", "\v", "\f", "\r", "\u0085", "\u00a0", "\u2003"} {
		assert.False(t, ParseWords("stays:a_u:h1"+space+"takes:b_u:h1").Of("b_u"), "%q", space)
	}
}

// A pod could otherwise be both the successor and the pod that stays Ready beside the successor.
func TestOnePodSaysOneWord(t *testing.T) {
	assert.Equal(t, Words{{Say: Takes, Identity: "a_u", To: "h1"}}, ParseWords("takes:a_u:h1 stays:a_u:h1 prepared:a_u:h1"))
}

func TestWordIsVoidForAnotherHold(t *testing.T) {
	for to, void := range map[string]bool{"h1": false, "h1.17": false, "h2": true, "h2.1": true, "h": true, "": true} {
		assert.Equal(t, void, Word{To: to}.Void("h1"), to)
	}
	assert.True(t, Word{To: ""}.Void(""), "a word while nobody holds")
}

func TestAnnouncementTellsWhoseAnswerCounts(t *testing.T) {
	for leaving, want := range map[string]struct {
		asked string
		soon  bool
	}{"": {}, "soon": {"", true}, "soon:b_u": {"b_u", true}, "b_u": {"", false}} {
		asked, soon := Asked(leaving)
		assert.Equal(t, want.asked, asked, leaving)
		assert.Equal(t, want.soon, soon, leaving)
	}
}

// An agent writes the words of other pods again, and the policy on Leases admits them only as they were.
func FuzzWordsOfOthersAreKeptAsTheyAre(f *testing.F) {
	f.Add("takes:a_u:h1.7 newer:b_u:h1:w/2/x:3")
	f.Add("newer:b_u:h1:w/02/x:+3  back:\x00:\u0085::0 stays:a_u:h1 takes:a_u:h1")
	f.Fuzz(func(t *testing.T, s string) {
		words := ParseWords(s)
		require.LessOrEqual(t, len(words), MostWords)
		require.Equal(t, words, ParseWords(words.String()))
		identities := map[string]bool{}
		for _, w := range words {
			require.Contains(t, strings.Split(s, " "), Words{w}.String())
			identities[w.Identity] = true
		}
		require.Len(t, identities, len(words))
	})
}
