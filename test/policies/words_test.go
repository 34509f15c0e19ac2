// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// speaks returns the messages of the policies that refuse other words on a Lease, from the pod "web-0_1".
func speaks(t *testing.T, name, before, after string) []string {
	t.Helper()
	old := lease("true")
	old.Name, old.Annotations = name, map[string]string{api.WordsAnnotation: before}
	l := old.DeepCopy()
	l.Annotations[api.WordsAnnotation] = after
	return refusals(t, request{
		by: pod("web-0", "1"), may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
		in: namespace(shop, true), object: l, old: old,
	})
}

// A forged word could make the holder yield to a pod that does not want the slot, or stop before
// another standby is prepared.
func TestAgentForgesNoWordOfAnotherPod(t *testing.T) {
	next := api.NextLease("lock.a")
	const own, wish, other, third = "takes:web-0_1:00ff.17", "newer:web-0_1:00ff:a-1/2/web-5d4f:3", "stays:web-1_2:00ff.17", "back:web-2_3:00ff:a-1/2/5d4f:0"
	longest := api.ParseWords("preferred:web-0_1:" + strings.Repeat("f", api.LongestLeave) + ":" +
		strings.Repeat("a", 63) + "/1152921504606846976/" + strings.Repeat("b", 63) + ":1152921504606846976")[0]
	most := api.Words{longest}
	for i := range api.MostWords - 1 {
		w := longest
		w.Identity = api.Identity(strings.Repeat(string("abcdefgh"[i]), 253), strings.Repeat("u", 36))
		most = append(most, w)
	}
	require.Len(t, api.ParseWords(most.String()), api.MostWords)
	offer := api.Word{Say: api.Supports, Identity: "web-0_1", To: "00ff", At: 3, Contact: api.Contact{
		Address: netip.MustParseAddrPort("[2001:db8::1]:13132"), Key: strings.Repeat("0b", 32),
	}}
	contact := ":00ff:" + offer.Contact.String() + ":3"
	full := "takes:a_1:h takes:b_1:h takes:c_1:h takes:d_1:h takes:e_1:h supports:f_1" + contact + " supports:g_1" + contact
	huge := strings.Repeat("stays:web-1_2:00ff ", 10_000)
	for what, test := range map[string]struct{ before, after string }{
		"an answer":                           {"", own},
		"a wish":                              {"", wish},
		"a wish without a revision":           {"", "preferred:web-0_1:00ff::0"},
		"an offer":                            {"", api.Words{offer}.String()},
		"an offer beside another's":           {"supports:web-1_2" + contact, "supports:web-1_2" + contact + " " + api.Words{offer}.String()},
		"an offer made again":                 {api.Words{offer}.String(), strings.TrimSuffix(api.Words{offer}.String(), "3") + "4"},
		"the longest word":                    {"", api.Words{longest}.String()},
		"the longest words":                   {most[1:].String(), most.String()},
		"beside others":                       {other + " " + third, other + " " + third + " " + own},
		"before others":                       {other + " " + third, own + " " + other + " " + third},
		"its own word replaced":               {own + " " + other, "prepared:web-0_1:00ff.17 " + other},
		"others' words dropped":               {other + " " + third, own},
		"all words dropped":                   {own + " " + other, ""},
		"its own word dropped":                {own + " " + other, other},
		"six others kept":                     {full, strings.TrimPrefix(full, "takes:a_1:h ") + " " + own},
		"a person's words kept":               {"stays:ä_1:\t " + other, "stays:ä_1:\t " + own},
		"a person's text kept as it is":       {huge, huge},
		"its own word after a huge text":      {huge, own},
		"its own word after many empty words": {strings.Repeat(" ", 4096), own},
	} {
		assert.Empty(t, speaks(t, next, test.before, test.after), what)
	}
	forged := map[string]struct{ before, after string }{
		"another's word":                      {"", other},
		"another's answer changed":            {other, "prepared:web-1_2:00ff.17"},
		"another's word for another hold":     {other, "stays:web-1_2:00ee.17"},
		"another's wish with a higher count":  {third, "back:web-2_3:00ff:a-1/2/5d4f:9"},
		"another's wish, other revision":      {third, "back:web-2_3:00ff:a-1/3/5d4f:0"},
		"another's word in other letters":     {other, "Stays:web-1_2:00ff.17"},
		"another's word beside its own":       {other, own + " takes:web-1_2:00ff.17"},
		"parts of two words of others":        {other + " " + third, "stays:web-2_3:00ff.17"},
		"two words":                           {other, own + " " + wish},
		"the same word twice":                 {"", own + " " + own},
		"a second word beside the first":      {own, own + " " + wish},
		"a word of nobody":                    {"", "takes::00ff"},
		"a word without parts":                {"", "web-0_1"},
		"a word to nobody":                    {"", "takes:web-0_1:"},
		"too many parts":                      {"", own + ":a-1/2/5d4f:3:4"},
		"a count that is no number":           {"", "newer:web-0_1:00ff:a-1/2/5d4f:many"},
		"beyond seven words":                  {full, full + " " + own},
		"seven words and its own word before": {full, own + " " + full},
		"another's offer":                     {"", "supports:web-1_2" + contact},
		"another's offer with its own key":    {"supports:web-1_2:00ff:" + strings.Repeat("0c", 38) + ":3", "supports:web-1_2" + contact},
		"another's offer for another hold":    {"supports:web-1_2" + contact, strings.Replace("supports:web-1_2"+contact, "00ff", "00ee", 1)},
		"another's offer in its own name":     {"", "supports:web-1_2" + contact + " " + own},
		"an offer beside its own answer":      {"", own + " " + api.Words{offer}.String()},
		"an offer with an address in colons":  {"", "supports:web-0_1:00ff:2001:db8::1:3"},
		"ten thousand words":                  {other, strings.Repeat(other+" ", 10_000) + own},
		"ten thousand words that were there":  {huge, huge + own},
		"another's word out of a huge text":   {huge, "stays:web-1_2:00ff " + own},
		"more than 4096 bytes":                {"", "takes:web-0_1:" + strings.Repeat("f", 4096)},
		"more than 4096 bytes of long words":  {"stays:" + strings.Repeat("é", 2010) + "_1:h", "stays:" + strings.Repeat("é", 2010) + "_1:h stays:web-0_1:" + strings.Repeat("f", 60)},
		"a letter that only looks like ASCII": {"", "takes:web-0_1:00ff．17"},
	}
	for _, space := range []string{" ", "\t", "\n", "\r", "\v", "\f", "\x00", "\u0085", "\u00a0", "\u2003", "\u2028", "\u3000", "\ufeff"} {
		for what, after := range map[string]string{
			"in its own word": own + space + other, "in its announcement": "takes:web-0_1:00ff" + space + other + ":", "at its end": own + space,
			"as its hold": "newer:web-0_1:" + space + other, "after the hold": "newer:web-0_1:00ff:" + space + other + ":1", "ahead": space + other + " " + own,
			"in its identity": "takes:web-0_1" + space + "stays:web-1_2:00ff.17", "in the first part": "stays" + space + ":web-0_1:00ff",
		} {
			if space != " " || what != "at its end" { // an empty word, which nobody reads
				forged[what+" after "+space] = struct{ before, after string }{"", after}
			}
		}
	}
	for what, test := range forged {
		refused := strings.Join(speaks(t, next, test.before, test.after), "\n")
		assert.Contains(t, refused, "NotYourIdentity: a pod says one word, only in its own name", what)
	}
	assert.Len(t, speaks(t, "lock.a", "", own), 1, "a slot's own Lease has no words")
	assert.Len(t, speaks(t, "lock.a", other, own), 1, "a person's words on a slot's own Lease")
	assert.Empty(t, speaks(t, "lock.a", other, other), "a person's words delay no renewal")
}

// The policy and the reader must agree, whatever a person or another pod has written before.
func TestPolicyAndReaderAgreeOnWords(t *testing.T) {
	const me, other = "web-0_1", "web-1_2"
	contact := strings.Repeat("0b", 32) + "0a000001334c"
	parts := []string{
		"stays", "takes", "newer", "supports", me, me, other, other, "h1", "h1.7", "a/2/b", "a/02/b", "3", "03", "+3", "", "é", "\t", "\u0085", "\u00a0", "a_1", "b_2",
	}
	random := rand.New(rand.NewPCG(1, 53))
	word := func() string {
		var all []string
		for range []int{3, 3, 5, 5, 4}[random.IntN(5)] {
			all = append(all, parts[random.IntN(len(parts))])
		}
		if random.IntN(2) == 0 { // often a word that a reader finds
			all[0], all[1], all[2] = parts[random.IntN(4)], parts[4+random.IntN(4)], "h1"
		}
		if len(all) == 5 && random.IntN(2) == 0 {
			all[3], all[4] = "a/2/b", parts[12+random.IntN(3)]
			if all[0] == string(api.Supports) {
				all[3] = contact
			}
		}
		return strings.Join(all, ":")
	}
	admitted, spoken, offered := 0, 0, 0
	for range 1500 {
		var before, after []string
		for range random.IntN(5) {
			before = append(before, word())
		}
		for range random.IntN(4) {
			if after = append(after, word()); len(before) > 0 && random.IntN(2) == 0 {
				after[len(after)-1] = before[random.IntN(len(before))]
			}
		}
		was, is := strings.Join(before, " "), strings.Join(after, " ")
		if len(speaks(t, api.NextLease("lock.a"), was, is)) == 0 {
			admitted++
			for _, w := range api.ParseWords(is) {
				if w.Identity == me {
					spoken++
					if w.Say == api.Supports {
						offered++
					}
				} else {
					require.Contains(t, before, api.Words{w}.String(), "%q became %q", was, is)
				}
			}
		}
		honest := slices.DeleteFunc(api.ParseWords(was), func(w api.Word) bool { return w.Identity == me })
		honest = append(honest, api.Word{Say: api.Takes, Identity: me, To: "h1.7"})
		require.Empty(t, speaks(t, api.NextLease("lock.a"), was, honest.String()), "an agent answers on %q", was)
	}
	assert.Greater(t, admitted, 150)
	assert.Greater(t, spoken, 20)
	assert.Positive(t, offered)
}
