// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

const workload = "0f6c7c52-1111-4222-8333-444455556666"

var (
	wall   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old    = api.Revision{Workload: workload, Number: 6, Hash: "old"}
	newer  = api.Revision{Workload: workload, Number: 7, Hash: "new"}
	newest = api.Revision{Workload: workload, Number: 8, Hash: "newest"}
	undone = api.Revision{Workload: workload, Number: 8, Hash: "old"}
	other  = api.Revision{Workload: "another", Number: 9, Hash: "new"}
)

func pod(name string, revision api.Revision) Pod {
	return Pod{Identity: name + "_u", Revision: revision}
}

// expiry is the instant from which a newer revision takes a slot whose holder does not renew. This
// instant is one second ([oldFirst]) after the field FreeAt of the slot that [heldBy] returns.
const expiry = 1001 * time.Second

// heldBy returns a slot whose holder's agent writes a rollout.
func heldBy(p Pod, yields api.Yields) Slot {
	return Slot{
		Known: true, Holder: p.Identity, Hold: "h1", Revision: p.Revision, FreeAt: 1000 * time.Second,
		Rollout: api.Rollout{Hold: "h1", Yields: yields, Proven: old},
	}
}

// inTurn returns a slot whose hold is a turn.
func inTurn(p Pod) Slot {
	s := heldBy(p, api.YieldsNow)
	s.Rollout.Yielder, s.Rollout.From = "a1_u", old
	return s.turns(1)
}

func (s Slot) turns(count int) Slot {
	s.Rollout.Turns = []api.Turns{{Revision: newer, Count: count}}
	return s
}

// earlier returns the slot with a hold that an earlier agent process began.
func earlier(s Slot) Slot {
	s.Earlier = true
	return s
}

func freed(successor string) Slot {
	return Slot{
		Known: true, Successor: successor, FreeAt: 100 * time.Second,
		Rollout: api.Rollout{Proven: old, Yielder: "a1_u", From: old},
	}
}

func TestStandbyAsksOnlyHolderOfAnOlderRevision(t *testing.T) {
	a1, b1, b2 := pod("a1", old), pod("b1", newer), pod("b2", newer)
	unwritten := heldBy(a1, api.YieldsNow)
	unwritten.Rollout.Hold = "h0"
	unread := heldBy(a1, api.YieldsNow)
	unread.Known = false
	next := heldBy(a1, api.YieldsNow).turns(2)
	next.Rollout.Turns[0].Next = wall.Add(5 * time.Minute)
	expired := heldBy(a1, api.YieldsNow).turns(1)
	expiredTurn := inTurn(b1)
	expired.FreeAt, expiredTurn.FreeAt = 20*time.Second, 20*time.Second
	expired.Since = 10 * time.Second
	rewritten := freed("")
	rewritten.Since = rewritten.FreeAt - 10*time.Second
	whole := StandbyFacts{Whole: true}
	for name, c := range map[string]struct {
		pod     Pod
		slot    Slot
		waiting StandbyFacts
		want    StandbyDecision
	}{
		"same revision":               {pod: pod("a2", old), slot: heldBy(a1, api.YieldsLater), want: StandbyDecision{Wake: pace.Never}},
		"same revision after an undo": {pod: pod("a2", undone), slot: heldBy(a1, api.YieldsLater), want: StandbyDecision{Wake: pace.Never}},
		"same revision, holder in its turn": {pod: b2, slot: inTurn(b1), want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "b1 has turn 1 of revision 7",
			TakeFrom: 1030 * time.Second, Wake: pace.Never,
		}},
		"same revision, holder not proven": {pod: b2, slot: heldBy(b1, api.YieldsNow), want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "b1 has the slot for revision 7, which has not served yet",
			TakeFrom: expiry, Wake: pace.Never,
		}},
		"newer, holder yields": {pod: b1, slot: heldBy(a1, api.YieldsNow), waiting: whole, want: StandbyDecision{
			NotReady: true, Reason: reasonAsks, Message: "asks a1 for turn 1 of revision 7", Wish: api.WantsNewer, Due: true,
			TakeFrom: expiry, Wake: pace.Never,
		}},
		"newer, image missing": {pod: b1, slot: heldBy(a1, api.YieldsNow), want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, TakeFrom: expiry, Wake: pace.Never,
			Message: "not every gated container waits for the slot, so revision 7 does not ask a1 yet",
		}},
		"newer, after a turn of this pod": {pod: b1, slot: heldBy(a1, api.YieldsNow).turns(1), waiting: StandbyFacts{Whole: true, Failed: true}, want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "another pod of revision 7 may ask a1 first", Due: true,
			TakeFrom: 1030 * time.Second, Wake: 25 * time.Second,
		}},
		"newer, no other pod asked": {
			pod: b1, slot: heldBy(a1, api.YieldsNow).turns(1), waiting: StandbyFacts{Whole: true, Failed: true, Due: 15 * time.Second},
			want: StandbyDecision{
				NotReady: true, Reason: reasonAsks, Message: "asks a1 for turn 2 of revision 7", Wish: api.WantsNewer, Due: true,
				TakeFrom: 1030 * time.Second, Wake: pace.Never,
			},
		},
		"newer, holder has not rested": {pod: b1, slot: heldBy(a1, api.YieldsLater), waiting: whole, want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "a1 yields to revision 7 once it has served for 1m0s", TakeFrom: expiry, Wake: pace.Never,
		}},
		"newer, next turn noted": {pod: b1, slot: next, waiting: whole, want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "turn 2 of revision 7 failed; turn 3 comes at 2026-01-02T03:09:05Z",
			TakeFrom: 1030 * time.Second, Wake: pace.Never,
		}},
		"newer, same template applied again": {
			pod: pod("b3", api.Revision{Workload: workload, Number: 9, Hash: "new"}), slot: next, waiting: whole,
			want: StandbyDecision{NotReady: true, Reason: reasonAsks, Message: "asks a1 for turn 1 of revision 9", Wish: api.WantsNewer, Due: true, TakeFrom: expiry, Wake: pace.Never},
		},
		"newer, paused": {pod: b1, slot: heldBy(a1, "no"), waiting: whole, want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "a1 holds the slot, which is paused", TakeFrom: expiry, Wake: pace.Never,
		}},
		"older, holder in its turn": {pod: pod("a2", old), slot: inTurn(b1), want: StandbyDecision{Ready: true, Wake: longestStartup}},
		"older, not proven itself": {pod: b1, slot: inTurn(pod("c1", newest)), want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "revision 7 has not served yet, and c1 holds the slot", TakeFrom: 1030 * time.Second, Wake: pace.Never,
		}},
		"older, holder proven":           {pod: pod("a2", old), slot: heldBy(b1, api.YieldsNow), want: StandbyDecision{Wake: pace.Never}},
		"free, own revision proven":      {pod: pod("a2", old), slot: freed(""), want: StandbyDecision{Wake: pace.Never}},
		"free, named":                    {pod: b1, slot: freed("b1_u").turns(2), want: StandbyDecision{NotReady: true, Reason: reasonWaits, Message: unproven, Wake: pace.Never}},
		"free, newer without a turn":     {pod: b1, slot: freed(""), want: StandbyDecision{NotReady: true, Reason: reasonWaits, Message: unproven, TakeFrom: 101 * time.Second, Wake: pace.Never}},
		"free, newer after failed turns": {pod: b1, slot: freed("").turns(1), want: StandbyDecision{NotReady: true, Reason: reasonWaits, Message: unproven, TakeFrom: 130 * time.Second, Wake: pace.Never}},
		"expired":                        {pod: b1, slot: expired, waiting: whole, want: StandbyDecision{NotReady: true, Reason: reasonWaits, Message: unproven, TakeFrom: 50 * time.Second, Wake: pace.Never}},
		"free, written once more":        {pod: b1, slot: rewritten, want: StandbyDecision{NotReady: true, Reason: reasonWaits, Message: unproven, TakeFrom: 91 * time.Second, Wake: pace.Never}},
		"expired, in a turn":             {pod: pod("a2", old), slot: expiredTurn, want: StandbyDecision{Wake: pace.Never}},
		"free, nothing proven":           {pod: b1, slot: Slot{Known: true}, want: StandbyDecision{Wake: pace.Never}},
		"own failed turn, not released": {pod: b1, slot: inTurn(b1), want: StandbyDecision{
			NotReady: true, Reason: reasonInTurn, Message: "turn 1 of revision 7 has ended before it was proven",
			TakeFrom: 1030 * time.Second, Wake: pace.Never,
		}},
		"own turn of an earlier process": {pod: b1, slot: earlier(inTurn(b1)), want: StandbyDecision{
			NotReady: true, Reason: reasonInTurn, Message: "turn 1 of revision 7 has ended before it was proven",
			Failed: true, TakeFrom: 1030 * time.Second, Wake: pace.Never,
		}},
		"own hold that was no turn": {pod: b1, slot: heldBy(b1, api.YieldsNow), want: StandbyDecision{
			NotReady: true, Reason: reasonWaits, Message: "revision 7 has ended before it was proven",
			TakeFrom: expiry, Wake: pace.Never,
		}},
		"own proven hold":           {pod: pod("a1", old), slot: heldBy(pod("a1", old), api.YieldsNow), want: StandbyDecision{Wake: pace.Never}},
		"another workload holds":    {pod: pod("x", other), slot: heldBy(a1, api.YieldsNow), waiting: whole, want: StandbyDecision{Wake: pace.Never}},
		"unknown revision":          {pod: pod("x", api.Revision{}), slot: heldBy(a1, api.YieldsNow), waiting: whole, want: StandbyDecision{Wake: pace.Never}},
		"holder's agent is older":   {pod: b1, slot: unwritten, waiting: whole, want: StandbyDecision{TakeFrom: expiry, Wake: pace.Never}},
		"Lease was not read":        {pod: b1, slot: unread, waiting: whole, want: StandbyDecision{Wake: pace.Never}},
		"holder's revision unknown": {pod: b1, slot: heldBy(pod("x", api.Revision{}), api.YieldsNow), waiting: whole, want: StandbyDecision{TakeFrom: expiry, Wake: pace.Never}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.pod.Standby(20*time.Second, c.slot, c.waiting))
		})
	}
}

const unproven = "revision 7 has not served yet, and nobody holds the slot"

func TestStandbyOfOldRevisionStaysReadyDuringTurn(t *testing.T) {
	s := inTurn(pod("b1", newer))
	s.Since, s.FreeAt = 10*time.Second, 2*longestStartup
	at := 10*time.Second + longestStartup
	assert.True(t, pod("a2", old).Standby(at-1, s, StandbyFacts{}).Ready, "the probes of the newer revision may allow it an hour")
	assert.Equal(t, StandbyDecision{Wake: pace.Never}, pod("a2", old).Standby(at, s, StandbyFacts{}))
	patient := pod("a2", old)
	patient.MinReady = time.Minute
	assert.True(t, patient.Standby(at, s, StandbyFacts{}).Ready)
}

func TestServingTimeDecidesWhetherAHolderYields(t *testing.T) {
	const s = time.Second
	const began = time.Hour
	ready := Pod{Identity: "b1_u", Revision: newer, MinReady: 30 * s}
	asks := wish("b1_u", newer)
	counted := func(count int) api.Rollout { return with(api.Rollout{Hold: "h1", Proven: old}, count) }
	turn := with(api.Rollout{Hold: "h1", Proven: old, Yielder: "a1_u", From: old}, 1)
	moved := func(why string, wish api.Say) HolderFacts {
		return HolderFacts{Rollout: api.Rollout{Hold: "h1", Proven: old, Moved: api.Moved{From: "a2_u", Why: why, Wish: wish}}}
	}
	for name, c := range map[string]struct {
		pod     Pod
		hold    HolderFacts
		now     time.Duration // the time since the hold began
		serving time.Duration // the time from the beginning of the hold until the application serves; zero if it never serves
		ask     api.Words
		// The fields below are the expected result.
		yields  api.Yields
		to      string
		proving bool
		failed  bool
		wake    time.Duration // the next decision, in time since the hold began; zero for never
	}{
		"serves for an instant":          {pod: pod("a1", old), hold: moved("Yielded", api.WantsNewer), serving: 1 * s, now: 2 * s, yields: api.YieldsLater, wake: 11 * s},
		"is proven, has not rested":      {pod: pod("a1", old), hold: moved("Yielded", api.WantsNewer), serving: 1 * s, now: 30 * s, ask: asks, yields: api.YieldsLater, wake: 61 * s},
		"has rested":                     {pod: pod("a1", old), hold: moved("Yielded", api.WantsNewer), serving: 1 * s, now: 61 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 611 * s},
		"after a preference":             {pod: pod("a1", old), hold: moved("Yielded", api.WantsPreferred), serving: 1 * s, now: 30 * s, ask: asks, yields: api.YieldsLater, wake: 61 * s},
		"after a failed turn":            {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(1)}, serving: 1 * s, now: 30 * s, ask: wish("c_u", newest), yields: api.YieldsLater, wake: 60 * s},
		"after an older one's turn":      {pod: pod("a1", newest), hold: HolderFacts{Rollout: counted(1)}, serving: 1 * s, now: 2 * s, yields: api.YieldsNow, proving: true, wake: 11 * s},
		"nobody has yielded to it":       {pod: pod("a1", old), serving: 1 * s, now: 2 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 11 * s},
		"after a crash":                  {pod: pod("a1", old), hold: moved("Ended", ""), serving: 1 * s, now: 2 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 11 * s},
		"moved by hand":                  {pod: pod("a1", old), hold: moved("Yielded", ""), serving: 1 * s, now: 2 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 11 * s},
		"same revision asks":             {pod: pod("a1", newer), serving: 1 * s, now: 99 * s, ask: asks, yields: api.YieldsNow, wake: 611 * s},
		"older revision asks":            {pod: pod("a1", newest), serving: 1 * s, now: 99 * s, ask: asks, yields: api.YieldsNow, wake: 611 * s},
		"another workload asks":          {pod: pod("a1", other), serving: 1 * s, now: 99 * s, ask: asks, yields: api.YieldsNow, wake: 611 * s},
		"asker waits after one turn":     {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(2)}, serving: 1 * s, now: 299 * s, ask: asks, yields: api.YieldsNow, wake: 300 * s},
		"asker has waited":               {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(2)}, serving: 1 * s, now: 300 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 611 * s},
		"asker waits an hour":            {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(9)}, serving: 1 * s, now: 3599 * s, ask: asks, yields: api.YieldsNow, wake: 3600 * s},
		"newest asks meanwhile":          {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(9)}, serving: 1 * s, now: 700 * s, ask: wish("c_u", newest), yields: api.YieldsNow, to: "c_u", wake: 3600 * s},
		"hangs":                          {pod: pod("a1", old), now: 2 * s, ask: asks, yields: api.YieldsNow, to: "b1_u"},
		"hangs, its probes wait long":    {pod: Pod{Identity: "a1_u", Revision: old, Startup: 3600 * s}, hold: HolderFacts{Rollout: counted(1)}, now: 600 * s, ask: asks, yields: api.YieldsNow, to: "b1_u", wake: 3600 * s},
		"starts after a failed turn":     {pod: Pod{Identity: "a1_u", Revision: old, Startup: 120 * s}, hold: HolderFacts{Rollout: counted(1)}, now: 119 * s, ask: asks, yields: api.YieldsNow, wake: 120 * s},
		"has not started in its time":    {pod: Pod{Identity: "a1_u", Revision: old, Startup: 120 * s}, hold: HolderFacts{Rollout: counted(1)}, now: 120 * s, ask: asks, yields: api.YieldsNow, to: "b1_u"},
		"hangs, asker has failed":        {pod: pod("a1", old), hold: HolderFacts{Rollout: counted(1)}, now: 59 * s, ask: asks, yields: api.YieldsNow, wake: 60 * s},
		"is paused":                      {pod: pod("a1", old), hold: HolderFacts{Paused: true}, serving: 1 * s, now: 99 * s, ask: asks, yields: api.YieldsNot, wake: 611 * s},
		"turn, does not serve":           {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, now: 59 * s, yields: api.YieldsNow, proving: true, wake: 60 * s},
		"turn, serves":                   {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, serving: 1 * s, now: 10 * s, yields: api.YieldsLater, proving: true, wake: 11 * s},
		"turn, has served":               {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, serving: 1 * s, now: 11 * s, yields: api.YieldsLater, wake: 61 * s},
		"turn, failed":                   {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, now: 60 * s, yields: api.YieldsNow, proving: true, failed: true},
		"turn, serves just in time":      {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, serving: 59 * s, now: 65 * s, yields: api.YieldsLater, proving: true, wake: 69 * s},
		"turn, slow as its old one":      {pod: pod("b1", newer), hold: HolderFacts{Rollout: startedIn(turn, 30*s)}, now: 60 * s, yields: api.YieldsNow, proving: true, wake: 90 * s},
		"turn, a startup probe waits":    {pod: Pod{Identity: "b1_u", Revision: newer, Startup: 80 * s}, hold: HolderFacts{Rollout: turn}, now: 60 * s, yields: api.YieldsNow, proving: true, wake: 80 * s},
		"turn, probes give an hour":      {pod: Pod{Identity: "b1_u", Revision: newer, Startup: 9000 * s}, hold: HolderFacts{Rollout: turn}, now: 3599 * s, yields: api.YieldsNow, proving: true, wake: 3600 * s},
		"turn, no more than an hour":     {pod: Pod{Identity: "b1_u", Revision: newer, Startup: 9000 * s}, hold: HolderFacts{Rollout: turn}, now: 3600 * s, yields: api.YieldsNow, proving: true, failed: true},
		"turn, Ready for the controller": {pod: ready, hold: HolderFacts{Rollout: turn}, serving: 1 * s, now: 11 * s, yields: api.YieldsLater, wake: 41 * s},
		"turn, Ready for long enough":    {pod: ready, hold: HolderFacts{Rollout: turn}, serving: 1 * s, now: 41 * s, yields: api.YieldsLater, wake: 61 * s},
		"turn, not Ready any more":       {pod: ready, hold: HolderFacts{Rollout: turn, Stopped: began + 31*s}, now: 60 * s, yields: api.YieldsNow, proving: true, wake: 91 * s},
		"turn, not Ready for too long":   {pod: ready, hold: HolderFacts{Rollout: turn, Stopped: began + 31*s}, now: 91 * s, yields: api.YieldsNow, proving: true, failed: true},
		"turn, Ready once more":          {pod: ready, hold: HolderFacts{Rollout: turn, Stopped: began + 31*s}, serving: 85 * s, now: 96 * s, yields: api.YieldsLater, wake: 125 * s},
		"turn, serves in time again":     {pod: ready, hold: HolderFacts{Rollout: turn, Stopped: began + 31*s}, serving: 85 * s, now: 92 * s, yields: api.YieldsLater, proving: true, wake: 95 * s},
		"turn, two rollouts":             {pod: pod("b1", newer), hold: HolderFacts{Rollout: turn}, now: 5 * s, ask: wish("c_u", newest), yields: api.YieldsNow, to: "c_u", proving: true, wake: 60 * s},
	} {
		t.Run(name, func(t *testing.T) {
			h := c.hold
			h.ID, h.Since, h.Wishes = "h1", began, c.ask
			if c.serving != 0 {
				h.Serves, h.Serving = true, began+c.serving
			}
			got := c.pod.Holder(began+c.now, wall, h)
			assert.Equal(t, c.yields, got.Rollout.Yields)
			assert.Equal(t, c.to, got.To.Identity)
			assert.Equal(t, c.proving, got.Message != "")
			assert.Equal(t, c.failed, got.Failed)
			wake := pace.Never
			if c.wake != 0 {
				wake = began + c.wake
			}
			assert.Equal(t, wake, got.Wake)
		})
	}
}

func wish(identity string, revision api.Revision) api.Words {
	return api.Words{{Say: api.WantsNewer, Identity: identity, Revision: revision}}
}

func with(r api.Rollout, count int) api.Rollout {
	r.Turns = []api.Turns{{Revision: newer, Count: count}}
	return r
}

func startedIn(r api.Rollout, d time.Duration) api.Rollout {
	r.StartMilliseconds = d.Milliseconds()
	return r
}

func TestStartingHolderIsSparedForALimitedTime(t *testing.T) {
	for name, c := range map[string]struct {
		revision api.Revision
		hold     HolderFacts
		now      time.Duration
		want     bool
	}{
		"begins":             {revision: old, want: true},
		"template is undone": {revision: undone, want: true},
		"in time":            {revision: old, now: shortestTurn - 1, want: true},
		"for too long":       {revision: old, now: shortestTurn},
		"serves":             {revision: old, hold: HolderFacts{Serves: true, Serving: 1}},
		"has served":         {revision: old, hold: HolderFacts{Serving: 1}},
		"is not proven":      {revision: newer},
	} {
		t.Run(name, func(t *testing.T) {
			c.hold.ID, c.hold.Rollout = "h1", api.Rollout{Hold: "h1", Proven: old}
			got := pod("a1", c.revision).Holder(c.now, wall, c.hold)
			assert.Equal(t, c.want, got.Starting)
			if c.want {
				assert.Equal(t, shortestTurn, got.Wake)
			}
		})
	}
}

func TestProvenRevisionForgetsItsTurnsAfterTenMinutes(t *testing.T) {
	p := pod("b1", newer)
	turn := with(api.Rollout{Hold: "h1", Proven: old, Yielder: "a1_u", From: old, StartMilliseconds: 1000}, 2)
	h := HolderFacts{ID: "h1", Serves: true, Serving: 3 * time.Second, Rollout: turn}
	h.Rollout = p.Holder(13*time.Second, wall, h).Rollout
	assert.Equal(t, with(api.Rollout{Hold: "h1", Yields: api.YieldsLater, Proven: newer, StartMilliseconds: 3000}, 2), h.Rollout)
	h.Rollout = p.Holder(612*time.Second, wall, h).Rollout
	assert.Equal(t, 2, h.Rollout.Of(newer).Count)
	h.Rollout = p.Holder(613*time.Second, wall, h).Rollout
	assert.Empty(t, h.Rollout.Turns)
}

func TestHolderWritesTimeOfNextTurnOnlyOnce(t *testing.T) {
	p := pod("a1", old)
	h := HolderFacts{ID: "h1", Rollout: with(api.Rollout{}, 1)}
	h.Rollout = p.Holder(0, wall, h).Rollout
	assert.Equal(t, wall.Add(time.Minute), h.Rollout.Of(newer).Next)
	again := p.Holder(10*time.Second, wall.Add(10300*time.Millisecond), h).Rollout
	assert.Equal(t, h.Rollout, again, "a write for nothing")
	assert.Zero(t, p.Holder(time.Minute, wall.Add(time.Minute), h).Rollout.Of(newer).Next)
}

func TestReleaseCountsTurnAndNamesSuccessor(t *testing.T) {
	a1, b1 := pod("a1", old), pod("b1", newer)
	yielded := with(api.Rollout{Proven: old, Yielder: "a1_u", From: old}, 1)
	second := yielded
	second.Turns = append(second.Turns, api.Turns{Revision: newest, Count: 1})
	for name, c := range map[string]struct {
		pod       Pod
		slot      Slot
		to        string
		turn      api.Revision
		want      api.Rollout
		successor string
	}{
		"an old pod yields":                {a1, heldBy(a1, api.YieldsNow), "b1_u", newer, yielded, "b1_u"},
		"the turn fails":                   {b1, inTurn(b1), "", api.Revision{}, yielded, "a1_u"},
		"a pod in its turn yields":         {b1, inTurn(b1), "c1_u", newest, second, "c1_u"},
		"a person moves a turn":            {b1, inTurn(b1), "c1_u", api.Revision{}, yielded, "c1_u"},
		"a pod without a turn yields back": {b1, heldBy(b1, api.YieldsNow), "a2_u", old, with(api.Rollout{Proven: old, Yielder: "b1_u", From: newer}, 1), "a2_u"},
		"a pod without a revision":         {pod("x", api.Revision{}), inTurn(b1), "y_u", api.Revision{}, inTurn(b1).Rollout, "y_u"},
	} {
		t.Run(name, func(t *testing.T) {
			r, successor := c.pod.Released(c.slot, c.to, c.turn)
			assert.Equal(t, c.want, r)
			assert.Equal(t, c.successor, successor)
		})
	}
}

func TestAcquisitionBeginsATurnOnlyAfterAYield(t *testing.T) {
	b1 := pod("b1", newer)
	for name, s := range map[string]Slot{
		"released for all":      freed(""),
		"released for another":  freed("b2_u"),
		"expired":               heldBy(pod("a1", old), api.YieldsNow),
		"turn of another hold":  inTurn(pod("b2", newer)),
		"yielded by a newer":    {Successor: "b1_u", Rollout: api.Rollout{From: newest, Yielder: "c_u"}},
		"nothing was yielded":   {Successor: "b1_u"},
		"own hold, not a turn":  heldBy(b1, api.YieldsNow),
		"own turn, later hold":  {Holder: "b1_u", Hold: "h9", Rollout: inTurn(b1).Rollout},
		"yielded by its equals": {Successor: "b1_u", Rollout: api.Rollout{From: newer, Yielder: "b2_u"}},
	} {
		assert.Empty(t, b1.Acquired(0, wall, s, "h2").Yielder, name)
	}
	assert.Equal(t, "a1_u", b1.Acquired(0, wall, inTurn(b1), "h2").Yielder, "the turn goes on after an outage")
	turn := with(api.Rollout{Hold: "h2", Yields: api.YieldsNow, Proven: old, Yielder: "a1_u", From: old}, 1)
	assert.Equal(t, turn, b1.Acquired(0, wall, freed("b1_u").turns(1), "h2"))
	for _, successor := range []string{"a1_u", "a2_u"} {
		r := Pod{Identity: successor, Revision: old}.Acquired(0, wall, freed(successor).turns(1), "h3")
		assert.Empty(t, r.Yielder, "an old pod needs no turn")
		assert.Equal(t, wall.Add(time.Minute), r.Of(newer).Next)
	}
}

func TestDeletedHolderMakesAskerItsSuccessorAtOnce(t *testing.T) {
	a1 := pod("a1", old)
	h := HolderFacts{ID: "h1", Serves: true, Rollout: api.Rollout{Hold: "h1"}, Wishes: wish("b1_u", newer)}
	assert.Equal(t, h.Wishes[0], a1.Deleted(5*time.Second, h))
	h.Unanswered = []string{h.Wishes[0].Identity}
	assert.Zero(t, a1.Deleted(5*time.Second, h))
	h.Unanswered = nil
	h.Rollout = with(h.Rollout, 1)
	assert.Zero(t, a1.Deleted(5*time.Second, h))
	h.Rollout, h.Paused = api.Rollout{}, true
	assert.Zero(t, a1.Deleted(5*time.Second, h))
}

func TestPodWithoutRevisionNeverChangesTheRolloutRecord(t *testing.T) {
	p, s := pod("x", api.Revision{}), inTurn(pod("b1", newer))
	assert.Equal(t, s.Rollout, p.Acquired(0, wall, s, "h2"))
	assert.Equal(t, HolderDecision{Rollout: s.Rollout, Wake: pace.Never}, p.Holder(0, wall, HolderFacts{ID: "h2", Rollout: s.Rollout}))
}

// The policy on Leases refuses an annotation above 8,192 bytes. An honest pod adds its own part to a text, and
// escapes characters, so a former holder's long text could make every later write invalid.
func TestForgedTextNeverOutgrowsTheLease(t *testing.T) {
	for name, text := range map[string]string{
		"escaped": `{"hangs":1,"hung":"` + strings.Repeat("<", 8000) + `"}`,
		"short":   `{"hangs":1,"hung":"` + strings.Repeat("<", 4000) + `"}`,
		"long":    `{"hangs":1,"hung":"` + strings.Repeat("x", 8150) + `"}`,
		"yielder": `{"hangs":1,"yielder":"` + strings.Repeat("x", 8140) + `"}`,
	} {
		for _, p := range []Pod{pod("b1", newer), {Identity: "c_u"}} {
			r := p.Acquired(time.Second, wall, Slot{Known: true, Successor: p.Identity, Rollout: api.ParseRollout(text)}, "h2")
			assert.Less(t, len(r.String()), 1024, name)
		}
	}
}

// The next hold keeps what the release says for people, and later holds do not repeat it.
func TestRolloutRecordTellsWhyTheSlotMovedLast(t *testing.T) {
	a1, moved := pod("a1", old), api.Moved{From: "a2_u", Why: "Yielded", Wish: api.WantsPreferred}
	s := freed("")
	s.Rollout.Moved = moved
	held := a1.Acquired(0, wall, s, "h2")
	assert.Equal(t, moved, api.ParseRollout(held.String()).Moved)
	assert.Equal(t, moved, a1.Holder(1, wall, HolderFacts{ID: "h2", Rollout: held}).Rollout.Moved)

	expired := heldBy(a1, api.YieldsNow)
	expired.Rollout = held
	assert.Zero(t, pod("a3", old).Acquired(0, wall, expired, "h3").Moved, "the holder vanished")
	assert.Equal(t, moved, a1.Acquired(0, wall, expired, "h3").Moved, "it takes its slot back, so it has not rested")
	left, _ := a1.Released(expired, "", api.Revision{})
	assert.Zero(t, left.Moved, "the caller knows the reason")
}
