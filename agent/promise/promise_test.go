// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package promise

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// toHolder and toStandby are the IDs of the two processes.
const toHolder, toStandby = "a_u/01", "b_u/02"

func keys() (holder, standby Key) {
	return NewKey(rand.NewPCG(1, 1)), NewKey(rand.NewPCG(2, 1))
}

func TestStandbyPromisesWhatTheHolderAsks(t *testing.T) {
	holder, standby := keys()
	asked := Ask{To: toStandby, Hold: "h1", Number: 7, For: 30 * time.Second}
	got, ok := Expected{By: holder.Public(), To: toStandby, Hold: "h1", After: 6}.Ask(holder.Ask(asked))
	require.True(t, ok)
	assert.Equal(t, asked, got)
	assert.True(t, asked.Promised(standby.Promise(got), standby.Public()))
}

func TestStandbyReadsOnlyWhatItExpects(t *testing.T) {
	holder, standby := keys()
	asked := Ask{To: toStandby, Hold: "h1", Number: 7, For: 30 * time.Second}
	expected := Expected{By: holder.Public(), To: toStandby, Hold: "h1", After: 6}
	message := holder.Ask(asked)
	words := strings.Fields(message)
	signature := words[3]
	for name, c := range map[string]struct {
		expected Expected
		message  string
	}{
		"to another process":        {Expected{expected.By, toHolder, "h1", 6}, message},
		"of another process":        {Expected{standby.Public(), expected.To, "h1", 6}, message},
		"of nobody":                 {Expected{"", expected.To, "h1", 6}, message},
		"of a short key":            {Expected{expected.By[2:], expected.To, "h1", 6}, message},
		"about another hold":        {Expected{expected.By, expected.To, "h2", 6}, message},
		"about no hold":             {Expected{expected.By, expected.To, "", 6}, message},
		"a second time":             {Expected{expected.By, expected.To, "h1", 7}, message},
		"for longer":                {expected, "h1 7 40000 " + signature},
		"with a later number":       {expected, "h1 8 30000 " + signature},
		"with a sign":               {expected, "h1 +7 30000 " + signature},
		"with zeros":                {expected, "h1 7 030000 " + signature},
		"for a time that overflows": {expected, "h1 7 4294997296 " + signature},
		"for less than nothing":     {expected, holder.Ask(Ask{To: asked.To, Hold: "h1", Number: 7, For: -time.Second})},
		"with a promise":            {expected, "h1 7 30000 " + holder.Promise(asked)},
		"with a long signature":     {expected, message + "00"},
		"with another space":        {expected, strings.ReplaceAll(message, " ", "\t")},
		"with more words":           {expected, message + " "},
	} {
		_, ok := c.expected.Ask(c.message)
		assert.False(t, ok, name)
	}
}

func TestAnswerCountsOnlyForItsAsk(t *testing.T) {
	holder, standby := keys()
	to := toStandby
	asked := Ask{To: to, Hold: "h1", Number: 7, For: 30 * time.Second}
	for name, answer := range map[string]string{
		"an earlier ask":        standby.Promise(Ask{To: to, Hold: "h1", Number: 6, For: 30 * time.Second}),
		"another hold":          standby.Promise(Ask{To: to, Hold: "h2", Number: 7, For: 30 * time.Second}),
		"a shorter time":        standby.Promise(Ask{To: to, Hold: "h1", Number: 7, For: 20 * time.Second}),
		"an ask to another":     standby.Promise(Ask{To: toHolder, Hold: "h1", Number: 7, For: 30 * time.Second}),
		"another process":       holder.Promise(asked),
		"the ask itself":        strings.Fields(holder.Ask(asked))[3],
		"a part of the promise": standby.Promise(asked)[:64],
		"nothing":               "",
		"no digits":             strings.Repeat("x", 128),
	} {
		assert.False(t, asked.Promised(answer, standby.Public()), name)
	}
	assert.False(t, asked.Promised(standby.Promise(asked), ""), "no key")
	assert.False(t, asked.Promised(standby.Promise(asked), standby.Public()[2:]), "a part of the key")
}

func FuzzAsk(f *testing.F) {
	holder, standby := keys()
	to := toStandby
	f.Add(holder.Ask(Ask{To: to, Hold: "h1", Number: 7, For: time.Second}))
	f.Add(standby.Ask(Ask{To: to, Hold: "h1", Number: 7}))
	f.Add("h1 7 1000 00")
	f.Fuzz(func(t *testing.T, message string) {
		a, ok := Expected{By: holder.Public(), To: to, Hold: "h1"}.Ask(message)
		if ok {
			require.Equal(t, holder.Ask(a), strings.ToLower(message), "only this process makes such a message")
		}
	})
}
