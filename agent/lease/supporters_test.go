// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	one = "b_u/0000000000000001"
	two = "c_u/0000000000000002"
)

// supportedSelf is a pod that has supporters.
func supportedSelf(t *testing.T) Self {
	b, err := api.Failsafe{Outage: 10 * time.Minute}.Budget(30 * time.Second)
	require.NoError(t, err)
	return Self{Identity: "a_u", BootID: "boot", Budget: b, Key: "k"}
}

// unlisted is a hold of which no renewal is stored.
func unlisted(t *testing.T) *Hold {
	self := supportedSelf(t)
	return &Hold{self: self, id: "h1", token: "1", from: at(100), record: Record{
		UID: "u", Version: "1", Holder: self.Identity, BootID: self.BootID, Hold: "h1", Duration: 30 * time.Second,
	}}
}

// listing is a hold of which a renewal with the supporters is stored.
func listing(t *testing.T, ids ...string) *Hold {
	h := unlisted(t)
	store(t, h, h.Renew(at(100), wall, profile, ids))
	return h
}

// store answers the attempt as the API server does after it has stored the attempt.
func store(t *testing.T, h *Hold, a Attempt) {
	version, err := strconv.Atoi(a.Record.Version)
	require.NoError(t, err)
	stored := a.Record
	stored.Version = strconv.Itoa(version + 1)
	require.NoError(t, h.Answered(a, stored))
}

func TestDeadlineNeedsThePromiseOfEachSupporter(t *testing.T) {
	h := listing(t, one, two)
	assert.Equal(t, 750*time.Second, h.Record().Duration)
	assert.Equal(t, at(125), h.Deadline(), "as without supporters")
	h.Promised(one, at(110))
	assert.Equal(t, at(125), h.Deadline(), "not all have promised")
	h.Promised(two, at(112))
	assert.Equal(t, at(135), h.Deadline(), "the earlier promise counts")
	assert.Equal(t, at(125), h.DrainAt())
	h.Promised(one, at(105))
	assert.Equal(t, at(135), h.Deadline(), "an answer that came late takes nothing back")
	h.Promised(one, at(2000))
	h.Promised(two, at(2000))
	assert.Equal(t, at(725), h.Deadline(), "nobody else waits for longer than the Lease")
}

// The API server may store an attempt that has no answer.
func TestDeadlineIsSafeForEachListThatMayBeStored(t *testing.T) {
	h := listing(t, one)
	assert.Equal(t, []string{one, two}, h.Renew(at(105), wall.Add(time.Second), profile, []string{one, two}).Record.Supporters.IDs)
	last := h.Renew(at(110), wall.Add(2*time.Second), profile, []string{two})
	assert.Equal(t, []string{one, two}, last.Record.Supporters.IDs, "the list stays while an attempt has no answer")
	assert.Equal(t, []string{one, two}, h.Required())
	h.Promised(one, at(120))
	assert.Equal(t, at(130), h.Deadline(), "the second supporter waits for 30 s after the attempt at 105")
	h.Promised(two, at(120))
	assert.Equal(t, at(145), h.Deadline())
	store(t, h, last)
	assert.Equal(t, at(145), h.Deadline())
	next := h.Renew(at(146), wall.Add(3*time.Second), profile, nil)
	assert.Empty(t, next.Record.Supporters.IDs)
	assert.Equal(t, 30*time.Second, next.Record.Duration)
	assert.Greater(t, next.Record.Supporters.Number, last.Record.Supporters.Number)
}

func TestListStaysForAWhileOnceItsChangeWasRefused(t *testing.T) {
	h := listing(t, one)
	h.Refused(h.Renew(at(105), wall.Add(time.Second), profile, []string{one, two}))
	again := h.Renew(at(106), wall.Add(2*time.Second), profile, []string{one, two})
	assert.Equal(t, []string{one}, again.Record.Supporters.IDs)
	store(t, h, again)
	again = h.Renew(at(107), wall.Add(3*time.Second), profile, nil)
	assert.Equal(t, []string{one}, again.Record.Supporters.IDs)
	store(t, h, again)
	later := h.Renew(at(115), wall.Add(4*time.Second), profile, []string{two})
	assert.Equal(t, []string{two}, later.Record.Supporters.IDs, "the policy has admitted a list before, so the refusal had another cause")
}

// An older policy admits no list at all, and each attempt to write one costs a refusal.
func TestFirstListIsTriedEverLessOften(t *testing.T) {
	h := unlisted(t)
	now, pauses := at(105), []time.Duration(nil)
	for range 9 {
		h.Refused(h.Renew(now, wall.Add(now), profile, nil))
		refused := now
		for now += time.Second; ; now += time.Second {
			a := h.Renew(now, wall.Add(now), profile, nil)
			if a.Record.Supporters.Key != "" {
				break
			}
			store(t, h, a)
		}
		pauses = append(pauses, now-refused)
	}
	const s = time.Second
	assert.Equal(t, []time.Duration{10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 320 * s, 600 * s, 600 * s, 600 * s}, pauses)
}

// Whatever refuses the list as it is, too, is no policy on lists: the API server does not know the pod's rights.
func TestOnlyARefusedChangeSettlesTheList(t *testing.T) {
	h := listing(t, one)
	h.Refused(h.Renew(at(105), wall.Add(time.Second), profile, []string{two}))
	h.Refused(h.Renew(at(106), wall.Add(2*time.Second), profile, []string{two}))
	asItIs := h.Renew(at(107), wall.Add(3*time.Second), profile, []string{two})
	assert.Equal(t, []string{one}, asItIs.Record.Supporters.IDs, "an attempt may still be stored")
	store(t, h, asItIs)
	assert.Equal(t, []string{two}, h.Renew(at(108), wall.Add(4*time.Second), profile, []string{two}).Record.Supporters.IDs)
}

// The supporters of a holder may have another lease duration, or another outage. They know how often it renews.
func TestPeriodOfAHolderWithSupportersIsThatOfItsList(t *testing.T) {
	own := supportedSelf(t).Budget
	list := api.Supporters{Wait: 20 * time.Second, Key: "k", IDs: []string{one}}
	for name, c := range map[string]struct {
		r    Record
		want time.Duration
	}{
		"no list":                       {Record{Duration: 60 * time.Second}, 10 * time.Second},
		"no list, the own duration":     {Record{Duration: 750 * time.Second}, 5 * time.Second},
		"a list":                        {Record{Duration: 102 * time.Second, Supporters: list}, 20 * time.Second / 6},
		"a person shortens the Lease":   {Record{Duration: 12 * time.Second, Supporters: list}, 2 * time.Second},
		"another client states a month": {Record{Duration: 720 * time.Hour}, 10 * time.Minute},
	} {
		assert.Equal(t, c.want, c.r.Period(own), name)
	}
}

// No list, promise or answer takes back what a grant says, and none reaches further than a deadline after a
// renewal that is sent now. So neither a new list nor a new agent process shortens a grant.
func TestDeadlineOnlyGrowsAndIsNeverFar(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h, last := listing(t, one), time.Duration(0)
		var sent []Attempt
		now := at(100)
		for range 60 {
			now += time.Duration(rng.Int64N(int64(8 * time.Second)))
			switch rng.IntN(5) {
			case 0, 1:
				ids := [][]string{nil, {one}, {two}, {one, two}}[rng.IntN(4)]
				sent = append(sent, h.Renew(now, wall.Add(now-at(100)), profile, ids))
			case 2:
				h.Promised([]string{one, two}[rng.IntN(2)], now)
			case 3:
				if len(sent) > 0 {
					h.Refused(sent[rng.IntN(len(sent))])
				}
			default:
				if len(sent) == 0 {
					continue
				}
				a := sent[rng.IntN(len(sent))]
				if stored := a.Record; a.Record.Version == h.Record().Version && rng.IntN(2) == 0 {
					stored.Version += "1"
					require.NoError(t, h.Read(stored))
				} else if a.Record.Version == h.Record().Version {
					store(t, h, a)
				}
			}
			require.GreaterOrEqual(t, h.Deadline(), last, "seed %d", seed)
			require.LessOrEqual(t, h.Deadline(), now+h.self.Budget.Deadline(), "seed %d", seed)
			last = h.Deadline()
		}
	}
}

// The holder before may have had a shorter lease duration. Until the first renewal of the next holder, its supporters
// must wait for as long as that holder runs.
func TestNewHolderInheritsNoSupporters(t *testing.T) {
	dead := Record{
		UID: "u", Version: "7", Holder: "b_u", Hold: "h1", Duration: 750 * time.Second, RenewTime: wall,
		Supporters: api.Supporters{Number: 3, Wait: 20 * time.Second, Key: "k", IDs: []string{one}},
	}
	self := supportedSelf(t)
	takes, err := self.Acquire(dead, "h2", profile, wall)
	require.NoError(t, err)
	taken := takes
	taken.Version = "8"
	h, err := self.Begin(Attempt{Sent: at(200), Record: takes}, taken, "")
	require.NoError(t, err)
	assert.Empty(t, h.Required(), "of another hold")

	o := &Observer{ID: one, Own: self.Budget}
	o.Read(at(100), dead)
	o.Watched(at(200), taken)
	until, ok := o.FreeAt(30 * time.Second)
	require.True(t, ok)
	assert.Equal(t, h.Deadline()+self.Budget.Margin, until, "of the new holder's own duration")
}

func TestSupporterWaitsForTheListAndItsPromise(t *testing.T) {
	list := api.Supporters{Number: 3, Wait: 20 * time.Second, Key: "k", IDs: []string{one}}
	held := Record{UID: "u", Version: "1", Holder: "a_u", Hold: "h1", Duration: 750 * time.Second, RenewTime: wall, Supporters: list}
	sees := func(id string, r Record) *Observer {
		o := &Observer{ID: id, Own: supportedSelf(t).Budget}
		o.Read(at(100), r)
		return o
	}
	free := func(o *Observer) time.Duration {
		until, ok := o.FreeAt(30 * time.Second)
		require.True(t, ok)
		return until
	}
	assert.Equal(t, at(120), free(sees(one, held)), "the holder's own lease duration, and not this pod's")
	assert.Equal(t, at(850), free(sees(two, held)), "not listed")

	o := sees(one, held)
	require.True(t, o.Promise(at(110), "h1", 30*time.Second))
	require.True(t, o.Promise(at(115), "h1", 10*time.Second))
	assert.Equal(t, at(140), free(o), "an earlier promise lasts")
	assert.False(t, o.Promise(at(110), "h2", time.Second), "another hold")
	assert.False(t, o.Promise(at(821), "h1", 30*time.Second), "longer than the Lease")

	restored := held
	restored.Version, restored.Supporters.Number = "9", 2
	o.Watched(at(111), restored)
	assert.Equal(t, at(861), free(o), "a later list may be lost")

	o = sees(one, held)
	require.True(t, o.Promise(at(110), "h1", 30*time.Second))
	o.Watched(at(112), Record{UID: "u", Version: "2", Holder: "x_u", Hold: "h1", Duration: time.Second, Transitions: 1})
	assert.Equal(t, at(140), free(o), "another client, which keeps the number of the hold")
	o.Watched(at(113), Record{UID: "u", Version: "3", Holder: "b_u", Hold: "h9", Duration: time.Second, Transitions: 2})
	assert.Equal(t, at(140), o.DoubtedUntil(), "a hold of this pod, whose death alone proves nothing")
	o = sees(one, held)
	require.True(t, o.Promise(at(110), "h1", 30*time.Second))
	o.Watched(at(112), Record{UID: "u", Version: "2", Duration: time.Second})
	assert.Equal(t, at(112), free(o), "a release ends the promise")
}
