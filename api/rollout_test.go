// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var (
	older  = Revision{Workload: "u", Number: 6, Hash: "old"}
	newer  = Revision{Workload: "u", Number: 7, Hash: "new"}
	inTurn = Rollout{
		Hold: "h1", Yields: YieldsNow, Proven: older, Yielder: "a1_u", From: older, Turns: []Turns{{Revision: newer, Count: 1}},
	}
)

func TestRolloutRecordSurvivesARoundTrip(t *testing.T) {
	r := inTurn
	r.StartMilliseconds, r.Prefers, r.Hangs, r.Hung = 1500, true, 2, "a1_u"
	r.Turns = append(slices.Clone(r.Turns), Turns{Revision: Revision{"another", 9, "new"}, Count: 3, Next: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	assert.Equal(t, r, ParseRollout(r.String()))
	assert.Equal(t,
		`{"hold":"h1","yields":"now","yielder":"a1_u","from":"u/6/old","proven":"u/6/old","startMilliseconds":1500,"prefers":true,"hangs":2,"hung":"a1_u",`+
			`"turns":[{"revision":"u/7/new","count":1},{"revision":"another/9/new","count":3,"next":"2026-01-02T03:04:05Z"}]}`,
		r.String())
	assert.Empty(t, Rollout{}.String())
	for _, damaged := range []string{
		"", "yes", "{", `{"from":"x"}`, `{"proven":"x"}`, `{"turns":[{"revision":"x","count":1}]}`,
		`{"turns":[{"revision":"a/1/b"}]}`, `{"turns":[{"revision":"a/1/b","count":1,"next":"soon"}]}`,
		`{"startMilliseconds":-1}`, `{"startMilliseconds":9000000000000}`, `{"hangs":1,"transitions":-1}`,
		`{"turns":[` + strings.Repeat(`{"revision":"a/1/b","count":1},`, rememberedTurns) + `{"revision":"a/1/b","count":1}]}`,
	} {
		assert.Zero(t, ParseRollout(damaged), damaged)
	}
}

func TestLeaseRemembersTurnsOfOnlyTheLatestRevisions(t *testing.T) {
	r := Rollout{}
	for n := range int64(10) {
		r = r.Counted(Revision{Workload: "u", Number: n + 1, Hash: "h"})
	}
	assert.Len(t, r.Turns, rememberedTurns)
	assert.Equal(t, r, ParseRollout(r.String()))
	assert.Equal(t, 2, r.Counted(r.Turns[0].Revision).Of(r.Turns[0].Revision).Count)
}

func FuzzRolloutAnnotationSurvivesARoundTrip(f *testing.F) {
	f.Add(inTurn.String())
	f.Fuzz(func(t *testing.T, s string) {
		r := ParseRollout(s)
		assert.Equal(t, r.String(), ParseRollout(r.String()).String())
	})
}

func TestLargestCountNeverMakesRolloutRecordUnreadable(t *testing.T) {
	r := ParseRollout(fmt.Sprintf(`{"proven":%q,"turns":[{"revision":%q,"count":%d}]}`, older.String(), newer.String(), math.MaxInt64))
	assert.Equal(t, older, r.Proven)
	again := ParseRollout(r.Counted(newer).String())
	assert.Equal(t, older, again.Proven)
	assert.Equal(t, MostTurns, again.Of(newer).Count)
}

// The policy on Leases refuses an annotation above 8,192 bytes.
func TestLongestHonestRolloutFits(t *testing.T) {
	longest := Revision{Workload: strings.Repeat("w", 63), Number: math.MaxInt64, Hash: strings.Repeat("h", 63)}
	identity := Identity(strings.Repeat("p", 253), strings.Repeat("u", 36))
	honest := Rollout{
		Hold: strings.Repeat("f", LongestLeave), Transitions: math.MaxInt32, Yields: YieldsLater, Yielder: identity, From: longest, Proven: longest,
		StartMilliseconds: LongestTurn.Milliseconds(), Prefers: true, Hangs: MostTurns, Hung: identity,
		Moved: Moved{From: identity, Why: "RenewDeadlinePassed", Wish: WantsPreferred},
	}
	for i := range rememberedTurns {
		longest.Number--
		honest.Turns = append(honest.Turns, Turns{Revision: longest, Count: MostTurns, Next: time.Unix(0, int64(i)).UTC()})
	}
	assert.Equal(t, honest.String(), ParseRollout(honest.String()).String())
	assert.Less(t, len(honest.String()), longestRollout*2/3)
}
