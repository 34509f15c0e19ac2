// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// These are the keys of two agent processes.
var keyA, keyB = strings.Repeat("0a", keyDigits/2), strings.Repeat("1b", keyDigits/2)

func TestSupportersSurviveARoundTrip(t *testing.T) {
	ids := []string{SupporterID("b_u", keyA), SupporterID("c_u", keyB)}
	for text, want := range map[string]Supporters{
		"":                    {},
		"a_u h1 0 30 " + keyA: {Wait: 30 * time.Second, Key: keyA},
		"a_u h1 7 10 " + keyA + " b_u/0a0a0a0a0a0a0a0a":                        {Number: 7, Wait: MinLeaseDuration, Key: keyA, IDs: ids[:1]},
		"a_u h1 8 3600 " + keyA + " b_u/0a0a0a0a0a0a0a0a c_u/1b1b1b1b1b1b1b1b": {Number: 8, Wait: MaxLeaseDuration, Key: keyA, IDs: ids},
	} {
		got := ParseSupporters(text, "a_u", "h1")
		assert.Equal(t, want, got, text)
		assert.Equal(t, text, got.Text("a_u", "h1"))
	}
}

// A supporter that waited only for the list's time would otherwise start its application beside another holder.
func TestVoidListNamesNobody(t *testing.T) {
	const list = "a_u h1 3 30 key b_u/01"
	require.NotZero(t, ParseSupporters(list, "a_u", "h1"))
	for what, c := range map[string]struct{ text, identity, hold string }{
		"a foreign holder keeps the text":  {list, "c_u", "h1"},
		"an elector without a hold":        {list, "a_u", ""},
		"another hold of the pod":          {list, "a_u", "h2"},
		"nobody holds":                     {list, "", "h1"},
		"a free Lease, and a list of none": {"  3 30 key b_u/01", "", ""},
		"the hold alone is empty":          {"a_u  3 30 key b_u/01", "a_u", ""},
		"an identity with a space":         {"a u h1 3 30 key", "a u", "h1"},
		"no key":                           {"a_u h1 3 30", "a_u", "h1"},
		"an empty key":                     {"a_u h1 3 30 ", "a_u", "h1"},
		"an empty ID":                      {list + " ", "a_u", "h1"},
		"three IDs":                        {list + " c_u/01 d_u/01", "a_u", "h1"},
		"a number with a sign":             {"a_u h1 +3 30 key b_u/01", "a_u", "h1"},
		"a number below zero":              {"a_u h1 -3 30 key b_u/01", "a_u", "h1"},
		"a huge number":                    {"a_u h1 99999999999999999999 30 key b_u/01", "a_u", "h1"},
		"no number":                        {"a_u h1 three 30 key b_u/01", "a_u", "h1"},
		"no wait":                          {"a_u h1 3 30s key b_u/01", "a_u", "h1"},
		"a wait below every lease":         {"a_u h1 3 9 key b_u/01", "a_u", "h1"},
		"a wait above every lease":         {"a_u h1 3 3601 key b_u/01", "a_u", "h1"},
		"a wait that overflows to 30 s":    {"a_u h1 3 " + strconv.FormatUint(1<<55+30, 10) + " key b_u/01", "a_u", "h1"},
		"another space":                    {strings.ReplaceAll(list, " ", "\t"), "a_u", "h1"},
	} {
		assert.Zero(t, ParseSupporters(c.text, c.identity, c.hold), what)
	}
}

func TestListNamesAgentProcesses(t *testing.T) {
	s := Supporters{Wait: 30 * time.Second, Key: keyA, IDs: []string{SupporterID("b_u", keyA), SupporterID("c_u", keyB)}}
	assert.True(t, s.Has(SupporterID("b_u", keyA)))
	assert.False(t, s.Has(SupporterID("b_u", keyB)), "the agent of b has restarted")
	assert.False(t, s.Has(""))
	assert.Equal(t, []string{"b_u", "c_u"}, s.Names())

	later := s
	later.Number = 7
	assert.True(t, s.Equal(later))
	for what, other := range map[string]Supporters{
		"fewer": {Wait: s.Wait, Key: s.Key, IDs: s.IDs[:1]}, "another key": {Wait: s.Wait, Key: keyB, IDs: s.IDs},
		"another wait": {Wait: time.Minute, Key: s.Key, IDs: s.IDs}, "none": {},
	} {
		assert.False(t, s.Equal(other), what)
	}
	assert.Empty(t, Supporters{Wait: s.Wait, IDs: s.IDs}.Text("a_u", "h1"), "without a key nobody can promise")
}

func TestContactSurvivesARoundTrip(t *testing.T) {
	for _, address := range []string{"10.0.0.1:13132", "[2001:db8::1]:65535", "[::ffff:10.0.0.1]:13132"} {
		want := Contact{Address: netip.MustParseAddrPort(address), Key: keyA}
		got, err := ParseContact(want.String())
		require.NoError(t, err, address)
		assert.Equal(t, want, got)
		assert.Regexp(t, "^[0-9a-f]+$", want.String(), "the policy on Leases admits the text in a word")
	}
}

func TestMalformedContactIsAnError(t *testing.T) {
	good := Contact{Address: netip.MustParseAddrPort("10.0.0.1:13132"), Key: keyA}
	zoned := Contact{Address: netip.MustParseAddrPort("[fe80::1%eth0]:13132"), Key: keyA}
	for what, text := range map[string]string{
		"empty": "", "the key alone": keyA, "no address": Contact{Key: keyA}.String(), "no key": Contact{Address: good.Address}.String(),
		"half a byte": good.String() + "0", "a byte too many": good.String() + "00", "a short key": good.String()[2:],
		"capital digits": strings.ToUpper(good.String()), "not digits": strings.Repeat("x", len(good.String())),
		"an interface of one node": zoned.String(),
	} {
		_, err := ParseContact(text)
		require.ErrorIs(t, err, errNoContact, what)
	}
}

func FuzzSupportersAreReadAsWritten(f *testing.F) {
	f.Add("a_u h1 3 30 key b_u/01 c_u/02", "a_u", "h1")
	f.Add("a_u h1 +3 030  b_u/01", "a_u", "h1")
	f.Add("a b 5 30 key", "a b", "5")
	f.Fuzz(func(t *testing.T, text, identity, hold string) {
		s := ParseSupporters(text, identity, hold)
		if s.Key == "" {
			require.Zero(t, s)
			return
		}
		require.Equal(t, text, s.Text(identity, hold))
		require.LessOrEqual(t, len(s.IDs), MostSupporters)
		require.GreaterOrEqual(t, s.Wait, MinLeaseDuration)
		require.NotContains(t, s.IDs, "")
		require.Zero(t, ParseSupporters(text, identity+"x", hold))
		require.Zero(t, ParseSupporters(text, identity, hold+"x"))
		require.Zero(t, ParseSupporters(text, "", hold))
		require.Zero(t, ParseSupporters(text, identity, ""))
	})
}

func FuzzContactIsReadAsWritten(f *testing.F) {
	f.Add(keyA + "0a000001334c")
	f.Add(strings.ToUpper(keyB) + "0a000001334c")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseContact(text); err == nil {
			require.Equal(t, text, c.String())
			require.True(t, c.Address.IsValid())
		}
	})
}
