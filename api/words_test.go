// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWordsSurviveARoundTrip(t *testing.T) {
	contact := Contact{Address: netip.MustParseAddrPort("[2001:db8::1]:13132"), Key: keyA}
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
		"supports:a_u:h1:" + contact.String() + ":3 stays:b:h1.7": {
			{Say: Supports, Identity: "a_u", To: "h1", Contact: contact, At: 3}, {Say: Stays, Identity: "b", To: "h1.7"},
		},
	} {
		got := ParseWords(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, text, got.String())
	}
}

func TestMalformedWordsAreLeftOut(t *testing.T) {
	kept := Words{{Say: Stays, Identity: "b_u", To: "h1"}}
	offered := Contact{Address: netip.MustParseAddrPort("10.0.0.1:13132"), Key: keyA}.String()
	for _, text := range []string{
		"newer:a_u:h1", "newer:a_u:h1:w/2/x", "newer:a_u:h1:w/x:1", "newer:a_u:h1:w/2/x:many", "newer:a_u:h1:w/2/x:03", "newer:a_u:h1:w/2/x:+3", "stays:a_u:h1:w/2/x:1", "stays:a_u",
		"supports:a_u:h1", "supports:a_u:h1:" + offered, "supports:a_u:h1:" + offered + ":03", "supports:a_u:h1:" + keyA + ":3", "supports:a_u:h1:w/2/x:3", "newer:a_u:h1:" + offered + ":3",
		"supports:a_u:h1:" + strings.ToUpper(offered) + ":3", "supports::h1:" + offered + ":3", "takes:a_u:h1:" + offered + ":3",
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
	f.Add("takes:a_u:h1.7 newer:b_u:h1:w/2/x:3 supports:c_u:h1:" + keyA + "0a000001334c:4")
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

func TestOneMoreWordVoidsWhatIsOld(t *testing.T) {
	// The word "supports:n" in the table stands for one with a contact.
	offers := func(s string) string {
		return regexp.MustCompile(`(supports:\w+:\w+):`).ReplaceAllString(s, "${1}:"+keyA+"0a000001334c:")
	}
	for name, c := range map[string]struct {
		have, add string
		insists   bool
		want      string // empty if the next Lease needs no further word
	}{
		"the first word":                         {"", "newer:n:h1:w/2/x:1", false, "newer:n:h1:w/2/x:1"},
		"the same word":                          {"newer:n:h1:w/2/x:1", "newer:n:h1:w/2/x:1", false, ""},
		"a later wish":                           {"newer:n:h1:w/2/x:1", "newer:n:h1:w/2/x:2", false, "newer:n:h1:w/2/x:2"},
		"an answer replaces the pod's wish":      {"newer:n:h1:w/2/x:1", "takes:n:h1.5", false, "takes:n:h1.5"},
		"words for an earlier hold":              {"newer:m:h1:w/2/x:1 stays:o:h1.5", "back:n:h2:w/1/o:1", false, "back:n:h2:w/1/o:1"},
		"answers to an earlier announcement":     {"stays:m:h1.5 newer:o:h1:w/2/x:1", "stays:n:h1.6", false, "newer:o:h1:w/2/x:1 stays:n:h1.6"},
		"a wish keeps the answers":               {"stays:m:h1.5", "newer:n:h1:w/2/x:1", false, "stays:m:h1.5 newer:n:h1:w/2/x:1"},
		"two other wishes":                       {"newer:m:h1:w/2/x:1 newer:o:h1:w/2/x:1", "newer:n:h1:w/2/x:1", false, ""},
		"two other wishes, a pod insists":        {"newer:m:h1:w/2/x:1 newer:o:h1:w/2/x:1", "newer:n:h1:w/2/x:1", true, "newer:o:h1:w/2/x:1 newer:n:h1:w/2/x:1"},
		"three answers":                          {"stays:m:h1.5 either:o:h1.5 takes:p:h1.5", "either:n:h1.5", false, ""},
		"three answers, the holder has asked":    {"stays:m:h1.5 either:o:h1.5 takes:p:h1.5", "takes:n:h1.5", true, "stays:m:h1.5 either:o:h1.5 takes:p:h1.5 takes:n:h1.5"},
		"three answers, and the pod is prepared": {"stays:m:h1.5 either:n:h1.5 takes:p:h1.5", "prepared:n:h1.5", false, "stays:m:h1.5 takes:p:h1.5 prepared:n:h1.5"},
		"a prepared pod says nothing else":       {"prepared:n:h1.5", "stays:n:h1.5", true, ""},
		"no room, a wish goes": {
			"newer:m:h1:w/2/x:1 stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 supports:s:h1:1 supports:t:h1:1", "takes:n:h1.5", true,
			"stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 supports:s:h1:1 supports:t:h1:1 takes:n:h1.5",
		},
		"no room, an offer goes": {
			"supports:m:h1:1 stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5", "either:n:h1.5", true,
			"stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5 either:n:h1.5",
		},
		"no room for an offer, an answer stays": {
			"stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5 either:u:h1.5", "supports:n:h1:1", false,
			"stays:o:h1.5 stays:p:h1.5 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5 either:u:h1.5 supports:n:h1:1",
		},
		"no room for an offer, and another pod's is newer than a wish": {
			"stays:o:h1.5 stays:p:h1.5 newer:q:h1:w/2/x:1 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5 supports:u:h1:1", "supports:n:h1:1", false,
			"stays:o:h1.5 stays:p:h1.5 stays:r:h1.5 newer:s:h1:w/2/x:1 takes:t:h1.5 supports:u:h1:1 supports:n:h1:1",
		},
		"answers alone have no room for a wish": {
			"stays:m:h1.5 stays:o:h1.5 stays:p:h1.5 stays:q:h1.5 stays:r:h1.5 stays:s:h1.5 stays:t:h1.5", "newer:n:h1:w/2/x:1", false,
			"stays:o:h1.5 stays:p:h1.5 stays:q:h1.5 stays:r:h1.5 stays:s:h1.5 stays:t:h1.5 newer:n:h1:w/2/x:1",
		},
		"the first offer":                  {"newer:m:h1:w/2/x:1 newer:o:h1:w/2/x:1 stays:p:h1.5", "supports:n:h1:1", false, "newer:m:h1:w/2/x:1 newer:o:h1:w/2/x:1 stays:p:h1.5 supports:n:h1:1"},
		"the same offer":                   {"supports:n:h1:1", "supports:n:h1:1", false, ""},
		"a later offer":                    {"supports:n:h1:1 supports:m:h1:1", "supports:n:h1:2", false, "supports:m:h1:1 supports:n:h1:2"},
		"two other offers":                 {"supports:m:h1:1 supports:o:h1:1", "supports:n:h1:1", false, ""},
		"two other offers, a pod insists":  {"supports:m:h1:1 supports:o:h1:1", "supports:n:h1:1", true, "supports:o:h1:1 supports:n:h1:1"},
		"an offer for an earlier hold":     {"supports:m:h1:1 supports:o:h2:1", "supports:n:h2:1", false, "supports:o:h2:1 supports:n:h2:1"},
		"a wish keeps the offers":          {"supports:m:h1:1 supports:o:h1:1", "newer:n:h1:w/2/x:1", false, "supports:m:h1:1 supports:o:h1:1 newer:n:h1:w/2/x:1"},
		"an answer keeps the offers":       {"supports:m:h1:1 stays:o:h1.4", "takes:n:h1.5", false, "supports:m:h1:1 takes:n:h1.5"},
		"an answer replaces the own offer": {"supports:n:h1:1", "takes:n:h1.5", false, "takes:n:h1.5"},
		"an offer replaces the own answer": {"takes:n:h1.5 stays:o:h1.5", "supports:n:h1:1", false, "stays:o:h1.5 supports:n:h1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, more := ParseWords(offers(c.have)).With(ParseWords(offers(c.add))[0], c.insists)
			assert.Equal(t, c.want != "", more)
			if more {
				assert.Equal(t, offers(c.want), got.String())
			}
		})
	}
}
