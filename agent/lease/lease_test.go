// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

var (
	wall    = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	profile = Profile{Address: "10.0.0.1", Workload: "Deployment/biller", Revision: api.Revision{Workload: "u", Number: 7, Hash: "5d4f"}}
)

// The function "at" returns the instant that is the given number of seconds after boot.
func at(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func self(t *testing.T, d time.Duration) Self {
	t.Helper()
	b, err := api.NewBudget(d)
	require.NoError(t, err)
	return Self{Identity: "a_u", BootID: "boot-1", Budget: b}
}

func free() Record { return Record{UID: "uid", Version: "1", Transitions: 4} }

// stored returns a write as the API server stores it, under a new version.
func stored(r Record, version string) Record {
	r.Version = version
	return r
}

// held returns a hold that began 100 s after boot. The lease duration is 30 s, and the Lease has
// version 2.
func held(t *testing.T) *Hold {
	t.Helper()
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", profile, wall)
	require.NoError(t, err)
	h, err := s.Begin(Attempt{Sent: at(100), Record: r}, stored(r, "2"), "")
	require.NoError(t, err)
	return h
}

func TestAcquireWritesTheFieldsThatClientGoWrites(t *testing.T) {
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", profile, wall)
	require.NoError(t, err)
	assert.Equal(t, "a_u", r.Holder)
	assert.Equal(t, 30*time.Second, r.Duration)
	assert.Equal(t, 5, r.Transitions)
	assert.Equal(t, r.RenewTime, r.AcquireTime)
	assert.Equal(t, "1", r.Version, "the write must replace the version that was read")
	assert.Empty(t, r.Token, "the write cannot contain its own version")

	again, err := s.Acquire(stored(r, "2"), "h2", profile, wall)
	require.NoError(t, err)
	assert.Equal(t, 5, again.Transitions, "the same holder is no transition")
	assert.NotEqual(t, r.RenewTime, again.RenewTime)
}

func TestAcquireNeverOverflowsTheNumberOfTransitions(t *testing.T) {
	r := free()
	r.Transitions = math.MaxInt32
	r, err := self(t, 30*time.Second).Acquire(r, "h1", profile, wall)
	require.NoError(t, err)
	assert.Equal(t, math.MaxInt32, r.Transitions)
}

func TestReleaseClearsEachFieldOfTheHolder(t *testing.T) {
	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", profile, wall)
	require.NoError(t, err)
	r.Token = "2"
	r, err = s.Release(stored(r, "2"), wall, "b_u")
	require.NoError(t, err)
	assert.Empty(t, r.Holder)
	assert.Equal(t, time.Second, r.Duration, "the API server refuses zero")
	assert.Zero(t, r.Profile)
	assert.Empty(t, r.Hold+r.Token+r.BootID)
	assert.Equal(t, 5, r.Transitions)

	_, err = s.Release(Record{UID: "uid", Version: "2", Holder: "b_u"}, wall, "")
	assert.ErrorIs(t, err, ErrLost, "a pod may not clear another pod's Lease")
}

func TestLeaseWriteRequiresUIDAndResourceVersion(t *testing.T) {
	s := self(t, 30*time.Second)
	for name, r := range map[string]Record{
		"no uid":     {Version: "1", Holder: "a_u", Hold: "h", BootID: "boot-1"},
		"no version": {UID: "uid", Holder: "a_u", Hold: "h", BootID: "boot-1"},
	} {
		_, err := s.Acquire(r, "h", profile, wall)
		assert.ErrorIs(t, err, ErrNoUID, name)
		_, err = s.Release(r, wall, "")
		assert.ErrorIs(t, err, ErrNoUID, name)
		_, err = s.Resume(r, "h", "1", profile, wall)
		assert.ErrorIs(t, err, ErrNoUID, name)
	}
}

func TestEachRenewalChangesTheStoredRenewTime(t *testing.T) {
	for name, from := range map[string]time.Time{
		"same instant":       wall,
		"same microsecond":   wall.Add(500 * time.Nanosecond),
		"clock was set back": wall.Add(time.Hour),
		"never renewed":      {},
	} {
		got := distinctTime(from, wall)
		assert.NotEqual(t, from.UnixMicro(), got.UnixMicro(), name)
		assert.Equal(t, got, got.Truncate(time.Microsecond), name)
	}
}

func TestTokenIsTheVersionOfTheAcquiringWrite(t *testing.T) {
	h := held(t)
	assert.Equal(t, "2", h.Token())
	for _, version := range []string{"3", "4"} {
		attempt := h.Renew(at(105), wall, profile, nil)
		assert.Equal(t, "2", attempt.Record.Token, "each renewal must write the token")
		require.NoError(t, h.Answered(attempt, stored(attempt.Record, version)))
		assert.Equal(t, "2", h.Token())
	}
}

func TestDeadlineCountsFromTheLastAnsweredRenewal(t *testing.T) {
	h := held(t)
	assert.Equal(t, at(105), h.RenewAt())
	assert.Equal(t, at(115), h.DrainAt())
	assert.Equal(t, at(125), h.Deadline())
	assert.Equal(t, at(130), h.ExpiresAt())

	attempt := h.Renew(at(106), wall, profile, nil)
	require.NoError(t, h.Answered(attempt, stored(attempt.Record, "3")))
	assert.Equal(t, at(131), h.Deadline())
	assert.Empty(t, h.pending)
}

func TestWriteSucceedsOnlyIfAnswerHasNewVersion(t *testing.T) {
	h := held(t)
	attempt := h.Renew(at(106), wall, profile, nil)
	require.ErrorIs(t, h.Answered(attempt, attempt.Record), ErrNotStored)
	assert.Equal(t, at(125), h.Deadline())

	s := self(t, 30*time.Second)
	r, err := s.Acquire(free(), "h1", profile, wall)
	require.NoError(t, err)
	_, err = s.Begin(Attempt{Sent: at(1), Record: r}, r, "")
	assert.ErrorIs(t, err, ErrNotStored)
}

func TestDeadlineAfterLostAnswersCountsFromFirstAttempt(t *testing.T) {
	h := held(t)
	first := h.Renew(at(105), wall, profile, nil)
	second := h.Renew(at(106), wall.Add(time.Second), profile, nil)
	third := h.Renew(at(107), wall.Add(2*time.Second), profile, nil)
	// In each round the API server has stored another one of the three attempts, and all
	// answers are lost. The deadline counts from the first attempt, whichever attempt the read
	// shows.
	for _, one := range []Attempt{first, second, third} {
		h := *h
		require.NoError(t, h.Read(stored(one.Record, "3")))
		assert.Equal(t, at(130), h.Deadline())
		assert.Empty(t, h.pending)
		assert.Equal(t, "3", h.Record().Version)
	}
}

func TestAnswerToSupersededRenewalNeverMovesTheDeadline(t *testing.T) {
	h := held(t)
	first := h.Renew(at(105), wall, profile, nil)
	second := h.Renew(at(106), wall.Add(time.Second), profile, nil)
	require.NoError(t, h.Answered(second, stored(second.Record, "3")))
	assert.Equal(t, at(131), h.Deadline())
	// The version has changed, so the API server can no longer store the first attempt.
	// Answered ignores an answer that reports the opposite.
	require.NoError(t, h.Answered(first, stored(first.Record, "9")))
	assert.Equal(t, at(131), h.Deadline())
	assert.Equal(t, "3", h.Record().Version)
}

func TestWriteByAnotherClientNeverExtendsTheHold(t *testing.T) {
	h := held(t)
	annotated := stored(h.Record(), "7")
	require.NoError(t, h.Read(annotated))
	assert.Equal(t, at(125), h.Deadline())
	assert.Equal(t, "7", h.Record().Version, "the next renewal must replace this version")

	// A pending attempt counts for nothing if another client then writes another renew time.
	h.Renew(at(110), wall.Add(time.Second), profile, nil)
	moved := stored(annotated, "8")
	moved.RenewTime = wall.Add(time.Minute)
	require.NoError(t, h.Read(moved))
	assert.Equal(t, at(125), h.Deadline())

	// Another client has written the Lease again with the renew time of this attempt. So the
	// API server must have stored the attempt before that write.
	attempt := h.Renew(at(111), wall.Add(2*time.Second), profile, nil)
	require.NoError(t, h.Read(stored(attempt.Record, "10")))
	assert.Equal(t, at(136), h.Deadline())
}

func TestReadOfUnchangedLeaseKeepsRenewalsPending(t *testing.T) {
	h := held(t)
	h.Renew(at(105), wall.Add(time.Second), profile, nil)
	require.NoError(t, h.Read(h.Record()))
	assert.Len(t, h.pending, 1, "the attempt may still be stored")
	later := h.Renew(at(109), wall.Add(2*time.Second), profile, nil)
	require.NoError(t, h.Read(stored(later.Record, "3")))
	assert.Equal(t, at(130), h.Deadline())
}

func TestSlotIsLostIfLeaseShowsAnotherHold(t *testing.T) {
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
			assert.Equal(t, at(125), h.Deadline(), "a loss must not move the deadline")
		})
	}
}

func TestDeadlineOfResumedHoldCountsFromFirstRenewal(t *testing.T) {
	s := self(t, 30*time.Second)
	r := held(t).Record()
	next, err := s.Resume(r, "h1", "2", profile, wall.Add(time.Second))
	require.NoError(t, err)
	assert.Equal(t, r.AcquireTime, next.AcquireTime)
	assert.Equal(t, "h1", next.Hold)
	h, err := s.Begin(Attempt{Sent: at(500), Record: next}, stored(next, "9"), "2")
	require.NoError(t, err)
	assert.Equal(t, "2", h.Token(), "the child already has this token")
	assert.Equal(t, at(525), h.Deadline())

	for name, hold := range map[string]string{"another hold": "h2", "none": ""} {
		_, err = s.Resume(r, hold, "2", profile, wall)
		assert.ErrorIs(t, err, ErrLost, name)
	}
	s.BootID = "boot-2"
	_, err = s.Resume(r, "h1", "2", profile, wall)
	assert.ErrorIs(t, err, ErrLost, "another boot")
	assert.True(t, s.Rebooted(r))
}

func TestStandbyWaitsForTheDurationInTheLease(t *testing.T) {
	const own = 30 * time.Second
	held := func(d time.Duration) Record { return Record{UID: "uid", Version: "1", Holder: "b_u", Duration: d} }
	for name, c := range map[string]struct {
		do    func(o *Observer)
		at    time.Duration
		never bool
	}{
		"never read":                            {do: func(*Observer) {}, never: true},
		"released":                              {do: func(o *Observer) { o.Read(at(5), free()) }, at: at(5)},
		"shorter than ours":                     {do: func(o *Observer) { o.Read(at(5), held(10*time.Second)) }, at: at(15)},
		"longer than ours":                      {do: func(o *Observer) { o.Read(at(5), held(time.Hour)) }, at: at(3605)},
		"no duration written":                   {do: func(o *Observer) { o.Read(at(5), held(0)) }, at: at(35)},
		"released with one second":              {do: func(o *Observer) { o.Read(at(5), Record{UID: "u", Version: "1", Duration: released}) }, at: at(5)},
		"read again unchanged":                  {do: func(o *Observer) { o.Read(at(5), held(own)); o.Read(at(20), held(own)) }, at: at(35)},
		"changed":                               {do: func(o *Observer) { o.Read(at(5), held(own)); o.Watched(at(20), stored(held(own), "2")) }, at: at(50)},
		"old event":                             {do: func(o *Observer) { o.Read(at(5), stored(held(own), "2")); o.Watched(at(6), held(own)) }, at: at(36)},
		"deleted and recreated":                 {do: func(o *Observer) { o.Read(at(5), held(own)); o.Gone(); o.Read(at(20), held(own)) }, at: at(50)},
		"deleted":                               {do: func(o *Observer) { o.Read(at(5), held(own)); o.Gone() }, never: true},
		"watch broken":                          {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind() }, never: true},
		"watch broken, then read before expiry": {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(10), held(own)) }, at: at(35)},
		"watch broken past expiry":              {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), held(own)) }, at: at(95)},
		"watch broken often": {do: func(o *Observer) {
			o.Read(at(0), held(time.Minute))
			for i := range 20 {
				o.Blind()
				o.Read(at(5+float64(i)*9), held(time.Minute))
			}
		}, at: at(60)},
		"two outages of the API server": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(60), held(own))
			o.Blind()
			o.Read(at(120), held(own))
		}, at: at(65)},
		"outages before and after expiry": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(29), held(own))
			o.Blind()
			o.Read(at(60), held(own))
		}, at: at(65)},
		"late notice of a broken watch": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Watched(at(5), stored(held(own), "2"))
			o.Blind() // the agent notices after 90 s that the watch is broken
			o.Read(at(91), stored(held(own), "2"))
		}, at: at(96)},
		"renewed during a gap": {do: func(o *Observer) {
			o.Read(at(0), held(own))
			o.Blind()
			o.Read(at(60), stored(held(own), "2"))
			o.Blind()
			o.Read(at(70), stored(held(own), "2"))
		}, at: at(90)},
		"above the longest duration": {do: func(o *Observer) { o.Read(at(5), held(1<<31*time.Second)) }, at: at(3605)},
		"watch broken, then changed": {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), stored(held(own), "2")) }, at: at(120)},
		"first read late, then shortened": {do: func(o *Observer) {
			o.Blind()
			o.Read(at(3600), held(time.Hour))
			o.Watched(at(3605), stored(held(own), "2"))
		}, at: at(3635)},
		"watch broken past expiry, then shortened": {do: func(o *Observer) {
			o.Read(at(5), held(time.Hour))
			o.Blind()
			o.Read(at(3700), held(time.Hour))
			o.Watched(at(3705), stored(held(own), "2"))
		}, at: at(3735)},
		"watch broken, then released":     {do: func(o *Observer) { o.Read(at(5), held(own)); o.Blind(); o.Read(at(90), stored(free(), "2")) }, at: at(90)},
		"watch broken, with later events": {do: func(o *Observer) { o.Blind(); o.Watched(at(5), held(own)) }, never: true},
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

func TestOnlyAnObservedRenewalProvesALivingHolder(t *testing.T) {
	held := func(hold string, renewed int) Record {
		return Record{UID: "uid", Version: hold + strconv.Itoa(renewed), Holder: "b_u", Hold: hold, RenewTime: time.Unix(int64(renewed), 0)}
	}
	noted := held("h1", 1)
	noted.Version, noted.Paused = "paused", api.PauseHold
	again := held("h1", 2)
	again.UID = "uid 2"
	damaged := held("h1", 1)
	damaged.Version, damaged.RenewTime = "damaged", time.Time{}
	restored := held("h1", 1)
	restored.Version = "restored"
	for name, c := range map[string]struct {
		seen  []Record
		alive bool
	}{
		"nothing seen":             {},
		"seen once":                {seen: []Record{held("h1", 1)}},
		"seen twice unchanged":     {seen: []Record{held("h1", 1), held("h1", 1)}},
		"renewed":                  {seen: []Record{held("h1", 1), held("h1", 2)}, alive: true},
		"paused by a person":       {seen: []Record{held("h1", 1), noted}},
		"renewed, then paused":     {seen: []Record{held("h1", 0), held("h1", 1), noted}, alive: true},
		"acquired by another hold": {seen: []Record{held("h1", 0), held("h1", 1), held("h2", 2)}},
		"acquired while free":      {seen: []Record{free(), held("h1", 1)}},
		"acquired, then renewed":   {seen: []Record{free(), held("h1", 1), held("h1", 2)}, alive: true},
		"old event":                {seen: []Record{held("h1", 2), held("h1", 1)}},
		"released":                 {seen: []Record{held("h1", 1), held("h1", 2), stored(free(), "3")}},
		"damaged, then restored":   {seen: []Record{held("h1", 1), damaged, restored}},
		"damaged, then renewed":    {seen: []Record{held("h1", 1), damaged, held("h1", 2), held("h1", 3)}, alive: true},
		"recreated":                {seen: []Record{held("h1", 0), held("h1", 1), again}},
	} {
		t.Run(name, func(t *testing.T) {
			var o Observer
			for i, r := range c.seen {
				o.Watched(at(float64(i)), r)
			}
			assert.Equal(t, c.alive, o.alive)
			o.Blind()
			o.Read(at(60), held("h1", 60))
			assert.False(t, o.alive, "the holder may have died in the gap")
			o.Watched(at(61), held("h1", 61))
			assert.True(t, o.alive)
		})
	}
}

// The test checks every lease duration that a pod may request. The holder's clock is too slow
// by a twelfth, and the standby's clock too fast by a twelfth: the most by which chronyd slews.
// Even so, the child of a vanished holder is dead before any standby may acquire.
func TestDeadlinePassesBeforeAnyStandbyMayAcquire(t *testing.T) {
	for d := api.MinLeaseDuration; d <= api.MaxLeaseDuration; d += time.Second {
		b, err := api.NewBudget(d)
		require.NoError(t, err)
		h := Hold{self: Self{Budget: b}, from: at(100)}
		slow := float64(h.Deadline()-at(100)) / (1 - 1./12) // the true time until a slow clock shows the deadline
		fast := float64(h.ExpiresAt()-at(100)) / (1 + 1./12)
		require.LessOrEqual(t, h.DrainAt()+b.Drain+b.Kill, h.Deadline(), "%v: the drain does not fit before the deadline", d)
		require.Less(t, h.RenewAt()+b.RequestTimeout, h.DrainAt(), "%v: a renewal may time out only after the drain", d)
		require.Less(t, slow, fast, "%v", d)
	}
}
