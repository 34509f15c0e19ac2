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

func keys() (holder, standby Key) {
	return NewKey(rand.NewPCG(1, 1)), NewKey(rand.NewPCG(2, 1))
}

func TestStandbyPromisesWhatTheHolderAsks(t *testing.T) {
	holder, standby := keys()
	asked := Ask{Hold: "h1", Number: 7, For: 30 * time.Second}
	got, ok := ParseAsk(holder.Ask(asked), holder.Public())
	require.True(t, ok)
	assert.Equal(t, asked, got)
	assert.True(t, asked.Promised(standby.Promise(got), standby.Public()))
}

func TestAnswerCountsOnlyForItsAsk(t *testing.T) {
	holder, standby := keys()
	asked := Ask{Hold: "h1", Number: 7, For: 30 * time.Second}
	for name, answer := range map[string]string{
		"an earlier ask":        standby.Promise(Ask{Hold: "h1", Number: 6, For: 30 * time.Second}),
		"another hold":          standby.Promise(Ask{Hold: "h2", Number: 7, For: 30 * time.Second}),
		"a shorter time":        standby.Promise(Ask{Hold: "h1", Number: 7, For: 20 * time.Second}),
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
	f.Add(holder.Ask(Ask{Hold: "h1", Number: 7, For: time.Second}))
	f.Add(standby.Ask(Ask{Hold: "h1", Number: 7}))
	f.Add("h1 7 1000 00")
	f.Fuzz(func(t *testing.T, message string) {
		a, ok := ParseAsk(message, holder.Public())
		if ok {
			require.Equal(t, holder.Ask(a), strings.ToLower(message), "only this process makes such a message")
		}
	})
}
