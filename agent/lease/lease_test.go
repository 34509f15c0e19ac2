// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

var (
	wall  = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	notes = Notes{Address: "10.0.0.1", Workload: "Deployment/biller"}
)

// at is an instant so many seconds after boot.
func at(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func self(t *testing.T, d time.Duration) Self {
	t.Helper()
	b, err := api.NewBudget(d)
	require.NoError(t, err)
	return Self{Identity: "a_u", BootID: "boot-1", Budget: b}
}

func free() Record { return Record{UID: "uid", Version: "1", Transitions: 4} }

// stored is what the API server makes of a write.
func stored(r Record, version string) Record {
	r.Version = version
	return r
}

// held is a hold of 30 s that began at 100 s, as version 2.
func held(t *testing.T) *Hold {
	t.Helper()
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", notes, wall)
	require.NoError(t, err)
	h, err := s.Begin(Attempt{Sent: at(100), Record: r}, stored(r, "2"), "")
	require.NoError(t, err)
	return h
}

func TestAcquiringWritesWhatClientGoWould(t *testing.T) {
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", notes, wall)
	require.NoError(t, err)
	assert.Equal(t, "a_u", r.Holder)
	assert.Equal(t, 30*time.Second, r.Duration)
	assert.Equal(t, 5, r.Transitions)
	assert.Equal(t, r.RenewTime, r.AcquireTime)
	assert.Equal(t, "1", r.Version, "it replaces what was read")
	assert.Empty(t, r.Token, "its own version is not known yet")

	again, err := s.Acquire(stored(r, "2"), "h2", notes, wall)
	require.NoError(t, err)
	assert.Equal(t, 5, again.Transitions, "the holder is the same")
	assert.NotEqual(t, r.RenewTime, again.RenewTime)
}

func TestReleasingClearsEverythingThatTheHolderWrote(t *testing.T) {
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", notes, wall)
	require.NoError(t, err)
	r.Token = "2"
	r, err = s.Release(stored(r, "2"), wall)
	require.NoError(t, err)
	assert.Empty(t, r.Holder)
	assert.Equal(t, time.Second, r.Duration, "the API server refuses zero")
	assert.Zero(t, r.Notes)
	assert.Empty(t, r.Hold+r.Token+r.BootID)
	assert.Equal(t, 5, r.Transitions)

	_, err = s.Release(Record{UID: "uid", Version: "2", Holder: "b_u"}, wall)
	assert.ErrorIs(t, err, ErrLost, "nobody clears another's")
}

func TestNothingIsWrittenThatWouldCompareNothing(t *testing.T) {
	s := self(t, 30*time.Second)
	for name, r := range map[string]Record{
		"no uid":     {Version: "1", Holder: "a_u", Hold: "h", BootID: "boot-1"},
		"no version": {UID: "uid", Holder: "a_u", Hold: "h", BootID: "boot-1"},
	} {
		_, err := s.Acquire(r, "h", notes, wall)
		assert.ErrorIs(t, err, ErrNoUID, name)
		_, err = s.Release(r, wall)
		assert.ErrorIs(t, err, ErrNoUID, name)
		_, err = s.Resume(r, "h", "1", notes, wall)
		assert.ErrorIs(t, err, ErrNoUID, name)
	}
}

func TestTheRenewTimeAlwaysDiffersInMicroseconds(t *testing.T) {
	for name, from := range map[string]time.Time{
		"same instant":       wall,
		"same microsecond":   wall.Add(500 * time.Nanosecond),
		"clock was set back": wall.Add(time.Hour),
		"never renewed":      {},
	} {
		got := different(from, wall)
		assert.NotEqual(t, from.UnixMicro(), got.UnixMicro(), name)
		assert.Equal(t, got, got.Truncate(time.Microsecond), name)
	}
}

func TestTheTokenIsTheVersionOfTheAcquiringWriteAndStays(t *testing.T) {
	h := held(t)
	assert.Equal(t, "2", h.Token())
	for _, version := range []string{"3", "4"} {
		attempt := h.Renew(at(105), wall, notes)
		assert.Equal(t, "2", attempt.Record.Token, "written from the first renewal on")
		require.NoError(t, h.Answered(attempt, stored(attempt.Record, version)))
		assert.Equal(t, "2", h.Token())
	}
}

func TestAHoldCountsFromTheSendingOfItsLastWriteThatCounts(t *testing.T) {
	h := held(t)
	assert.Equal(t, at(105), h.RenewAt())
	assert.Equal(t, at(115), h.DrainAt())
	assert.Equal(t, at(125), h.Deadline())
	assert.Equal(t, at(130), h.ExpiresAt())

	attempt := h.Renew(at(106), wall, notes)
	require.NoError(t, h.Answered(attempt, stored(attempt.Record, "3")))
	assert.Equal(t, at(131), h.Deadline())
	assert.Zero(t, h.Pending())
}

func TestAnAnswerWithTheVersionThatWasSentDoesNotCount(t *testing.T) {
	h := held(t)
	attempt := h.Renew(at(106), wall, notes)
	require.ErrorIs(t, h.Answered(attempt, attempt.Record), ErrNotStored)
	assert.Equal(t, at(125), h.Deadline())

	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", notes, wall)
	require.NoError(t, err)
	_, err = s.Begin(Attempt{Sent: at(1), Record: r}, r, "")
	assert.ErrorIs(t, err, ErrNotStored)
}

func TestALostReplyCountsFromTheEarliestUnansweredAttempt(t *testing.T) {
	h := held(t)
	first := h.Renew(at(105), wall, notes)
	second := h.Renew(at(106), wall.Add(time.Second), notes)
	third := h.Renew(at(107), wall.Add(2*time.Second), notes)
	// One of them was stored; the reader cannot know in whose answer's stead.
	for _, one := range []Attempt{first, second, third} {
		h := *h
		require.NoError(t, h.Read(stored(one.Record, "3")))
		assert.Equal(t, at(130), h.Deadline())
		assert.Zero(t, h.Pending())
		assert.Equal(t, "3", h.Record().Version)
	}
}

func TestAnswersMayComeInAnyOrder(t *testing.T) {
	h := held(t)
	first := h.Renew(at(105), wall, notes)
	second := h.Renew(at(106), wall.Add(time.Second), notes)
	require.NoError(t, h.Answered(second, stored(second.Record, "3")))
	assert.Equal(t, at(131), h.Deadline())
	// The first can no longer have been stored; were its answer to say so all
	// the same, it would be about another state.
	require.NoError(t, h.Answered(first, stored(first.Record, "9")))
	assert.Equal(t, at(131), h.Deadline())
	assert.Equal(t, "3", h.Record().Version)
}

func TestSomebodyElsesWriteExtendsNothing(t *testing.T) {
	h := held(t)
	annotated := stored(h.Record(), "7")
	require.NoError(t, h.Read(annotated))
	assert.Equal(t, at(125), h.Deadline())
	assert.Equal(t, "7", h.Record().Version, "the next renewal replaces it")

	// Nor does one that moved the renew time, before our attempts were sent.
	h.Renew(at(110), wall.Add(time.Second), notes)
	moved := stored(annotated, "8")
	moved.RenewTime = wall.Add(time.Minute)
	require.NoError(t, h.Read(moved))
	assert.Equal(t, at(125), h.Deadline())

	// Our renewal still stands in what somebody wrote on top of it.
	attempt := h.Renew(at(111), wall.Add(2*time.Second), notes)
	require.NoError(t, h.Read(stored(attempt.Record, "10")))
	assert.Equal(t, at(136), h.Deadline())
}

func TestAReadOfTheSameVersionLeavesAttemptsOpen(t *testing.T) {
	h := held(t)
	h.Renew(at(105), wall.Add(time.Second), notes)
	require.NoError(t, h.Read(h.Record()))
	assert.Equal(t, 1, h.Pending(), "it may yet be stored")
	later := h.Renew(at(109), wall.Add(2*time.Second), notes)
	require.NoError(t, h.Read(stored(later.Record, "3")))
	assert.Equal(t, at(130), h.Deadline())
}

func TestALeaseThatIsNotOfThisHoldIsLost(t *testing.T) {
	for name, change := range map[string]func(r *Record){
		"another holder":          func(r *Record) { r.Holder = "b_u" },
		"released":                func(r *Record) { r.Holder = "" },
		"another hold of the pod": func(r *Record) { r.Hold = "h2" },
		"another boot":            func(r *Record) { r.BootID = "boot-2" },
		"another object":          func(r *Record) { r.UID = "uid-2" },
	} {
		t.Run(name, func(t *testing.T) {
			h := held(t)
			r := stored(h.Record(), "3")
			change(&r)
			err := h.Read(r)
			require.ErrorIs(t, err, ErrLost)
			var lost *LostError
			require.ErrorAs(t, err, &lost)
			assert.Equal(t, r.Holder, lost.Holder)
			assert.Equal(t, at(125), h.Deadline(), "the deadline stays what it was")
		})
	}
}

func TestAResumedHoldHasNoDeadlineBeforeItsFirstRenewal(t *testing.T) {
	s := self(t, 30*time.Second)
	r := held(t).Record()
	next, err := s.Resume(r, "h1", "2", notes, wall.Add(time.Second))
	require.NoError(t, err)
	assert.Equal(t, r.AcquireTime, next.AcquireTime)
	assert.Equal(t, "h1", next.Hold)
	h, err := s.Begin(Attempt{Sent: at(500), Record: next}, stored(next, "9"), "2")
	require.NoError(t, err)
	assert.Equal(t, "2", h.Token(), "the child has it already")
	assert.Equal(t, at(525), h.Deadline())

	for name, hold := range map[string]string{"another hold": "h2", "none": ""} {
		_, err = s.Resume(r, hold, "2", notes, wall)
		assert.ErrorIs(t, err, ErrLost, name)
	}
	s.BootID = "boot-2"
	_, err = s.Resume(r, "h1", "2", notes, wall)
	assert.ErrorIs(t, err, ErrLost, "another boot")
	assert.True(t, s.Rebooted(r))
}

func TestAStandbyWaitsAsLongAsTheHolderWrote(t *testing.T) {
	const own = 30 * time.Second
	held := func(d time.Duration) Record { return Record{UID: "uid", Version: "1", Holder: "b_u", Duration: d} }
	for name, c := range map[string]struct {
		do    func(o *Observer)
		at    time.Duration
		never bool
	}{
		"nothing seen":           {do: func(*Observer) {}, never: true},
		"released":               {do: func(o *Observer) { o.Read(at(5), free()) }, at: at(5)},
		"shorter than ours":      {do: func(o *Observer) { o.Read(at(5), held(10*time.Second)) }, at: at(15)},
		"longer than ours":       {do: func(o *Observer) { o.Read(at(5), held(time.Hour)) }, at: at(3605)},
		"none written":           {do: func(o *Observer) { o.Read(at(5), held(0)) }, at: at(35)},
		"released says a second": {do: func(o *Observer) { o.Read(at(5), Record{UID: "u", Version: "1", Duration: released}) }, at: at(5)},
		"seen again, unchanged":  {do: func(o *Observer) { o.Read(at(5), held(own)); o.Read(at(20), held(own)) }, at: at(35)},
		"changed":                {do: func(o *Observer) { o.Read(at(5), held(own)); o.Watched(at(20), stored(held(own), "2")) }, at: at(50)},
		"an old event":           {do: func(o *Observer) { o.Read(at(5), stored(held(own), "2")); o.Watched(at(6), held(own)) }, at: at(36)},
		"deleted and made anew":  {do: func(o *Observer) { o.Read(at(5), held(own)); o.Gone(); o.Read(at(20), held(own)) }, at: at(50)},
		"gone":                   {do: func(o *Observer) { o.Read(at(5), held(own)); o.Gone() }, never: true},
		"blind":                  {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind() }, never: true},
		"blind, read before it":  {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(10), held(own)) }, at: at(35)},
		"blind past its end":     {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), held(own)) }, at: at(95)},
		"cut again and again": {do: func(o *Observer) {
			o.Read(at(0), held(time.Minute))
			for i := range 20 {
				o.Blind()
				o.Read(at(5+float64(i)*9), held(time.Minute))
			}
		}, at: at(60)},
		"the API server away twice": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(60), held(own))
			o.Blind()
			o.Read(at(120), held(own))
		}, at: at(65)},
		"away before its end, and past it": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(29), held(own))
			o.Blind()
			o.Read(at(60), held(own))
		}, at: at(65)},
		"silent, then a write without an answer": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Watched(at(5), stored(held(own), "2"))
			o.Blind() // noticed at 90
			o.Read(at(91), stored(held(own), "2"))
		}, at: at(96)},
		"renewed in a gap": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(60), stored(held(own), "2"))
			o.Blind()
			o.Read(at(70), stored(held(own), "2"))
		}, at: at(90)},
		"more than anybody may ask for": {do: func(o *Observer) { o.Read(at(5), held(1<<31*time.Second)) }, at: at(3605)},
		"blind, and it changed":         {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), stored(held(own), "2")) }, at: at(120)},
		"blind, released":               {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), stored(free(), "2")) }, at: at(90)},
		"blind, events meanwhile":       {do: func(o *Observer) { o.Blind(); o.Watched(at(5), held(own)) }, never: true},
	} {
		t.Run(name, func(t *testing.T) {
			var o Observer
			c.do(&o)
			got, ok := o.FreeAt(own)
			assert.Equal(t, !c.never, ok)
			assert.Equal(t, c.at, got)
		})
	}
}

// The whole of the rule, for every duration that may be asked for: chronyd slews
// the clock of one node up by a twelfth and that of another node down. The child
// of the holder that vanished is dead before any standby may begin.
func TestTheDeadlinePassesBeforeAnybodyElseMayBegin(t *testing.T) {
	for d := api.MinLeaseDuration; d <= api.MaxLeaseDuration; d += time.Second {
		b, err := api.NewBudget(d)
		require.NoError(t, err)
		h := Hold{self: Self{Budget: b}, from: at(100)}
		slow := float64(h.Deadline()-at(100)) / (1 - 1./12) // true time until a slow clock shows it
		fast := float64(h.ExpiresAt()-at(100)) / (1 + 1./12)
		require.LessOrEqual(t, h.DrainAt()+b.Drain+b.Kill, h.Deadline(), "%v: the child has its time", d)
		require.Less(t, h.RenewAt()+b.RequestTimeout, h.DrainAt(), "%v: a request may time out", d)
		require.Less(t, slow, fast, "%v", d)
	}
}
