// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// claimOfOneSlot returns a new claim of one slot, and a record of its free Lease, which the
// claim has not read yet.
func claimOfOneSlot(t *testing.T) (*claim, Facts, lease.Record) {
	t.Helper()
	random := modelRandom(1)
	c := newClaim(Claim{Need: api.Need{Slots: []string{"slot"}}, Self: self(t, "a", 30*time.Second), Random: &random}, 0)
	f := Facts{Wall: time.Now(), Compete: true}
	return c, f, lease.Record{UID: "uid", Version: "1"}
}

// next lets the claim decide. Unless the facts have outcomes, no child of any hold can be alive.
func next(c *claim, now time.Duration, f Facts) ([]Action, time.Duration) {
	if f.Outcomes == nil {
		f.Outcomes = outcomes(c, func(string) bool { return true })
	}
	return c.next(now, f)
}

// The function "only" lets the claim decide, and returns the first action of the kind.
func only(t *testing.T, c *claim, now time.Duration, f Facts, kind Kind) Action {
	t.Helper()
	actions, _ := next(c, now, f)
	for _, a := range actions {
		if a.Kind == kind {
			return a
		}
	}
	require.FailNow(t, "no such action", "kind %d of %+v", kind, actions)
	return Action{}
}

// A pod may end while the answer to its acquiring write is lost. The Lease would then name a
// pod that never releases it.
func TestEndingPodReleasesSlotAcquiredByUnansweredWrite(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	look := only(t, c, 0, f, Look)
	look.Read(0, free)
	acquire := only(t, c, 0, f, Acquire)
	c.Stop(time.Second)
	require.Error(t, c.answered(5*time.Second, acquire, Answer{Err: errTimeout}))
	next(c, 5*time.Second, f)
	require.Equal(t, Waiting, c.State().Stage, "the write may have been stored")
	look = only(t, c, 6*time.Second, f, Look)
	stored := acquire.Record
	stored.Version = "2"
	look.Read(6*time.Second, stored)
	release := only(t, c, 6*time.Second, f, Release)
	freed := release.Record
	freed.Version = "3"
	require.NoError(t, c.answered(6*time.Second, release, Answer{Record: freed}))
	next(c, 6*time.Second, f)
	assert.Equal(t, Done, c.State().Stage)
}

// The API server may store an acquiring write after the pod has given up. The pod's other processes,
// and earlier attempts, have other renew times.
func TestDeadlineOfFoundHoldCountsFromSending(t *testing.T) {
	for name, test := range map[string]struct {
		read time.Duration
		edit func(r *lease.Record)
		held bool
	}{
		"stored":             {4 * time.Second, func(*lease.Record) {}, true},
		"another renew time": {4 * time.Second, func(r *lease.Record) { r.RenewTime = r.RenewTime.Add(time.Second) }, false},
		"another hold":       {4 * time.Second, func(r *lease.Record) { r.Hold = "other" }, false},
		"another Lease":      {4 * time.Second, func(r *lease.Record) { r.UID = "other" }, false},
		"the drain has come": {20 * time.Second, func(*lease.Record) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, f, free := claimOfOneSlot(t)
			only(t, c, 0, f, Look).Read(0, free)
			acquire := only(t, c, time.Second, f, Acquire)
			require.Error(t, c.answered(3*time.Second, acquire, Answer{Err: errTimeout}))
			look := only(t, c, test.read, f, Look)
			stored := acquire.Record
			stored.Version = "2"
			test.edit(&stored)
			look.Read(test.read, stored)
			next(c, test.read, f)
			assert.Equal(t, test.held, c.State().Stage == Held)
			if test.held {
				assert.Equal(t, time.Second+c.need.Self.Budget.Deadline(), c.State().Deadline)
				assert.Equal(t, "2", c.State().Tokens[0].Token)
			}
		})
	}
}

// The pod releases the hold of a late write, because its shim has ended, and then another shim waits. The
// API server may store the release even after the pod has given up. So only a write that replaces the
// same version may begin a hold.
func TestUnansweredReleaseEndsTheFoundHold(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	only(t, c, 0, f, Look).Read(0, free)
	acquire := only(t, c, time.Second, f, Acquire)
	require.Error(t, c.answered(3*time.Second, acquire, Answer{Err: errTimeout}))
	look := only(t, c, 4*time.Second, f, Look)
	f.Compete = false
	stored := acquire.Record
	stored.Version = "2"
	look.Read(4*time.Second, stored)
	release := only(t, c, 4*time.Second, f, Release)
	f.Compete = true
	sent, _ := kinds(c, 5*time.Second, f)
	require.Empty(t, sent, "the release is under way")
	require.Error(t, c.answered(6*time.Second, release, Answer{Err: errTimeout}))
	_, now := next(c, 6*time.Second, f)
	require.Equal(t, Waiting, c.State().Stage, "the release may be stored later")
	only(t, c, now, f, Look).Read(now, stored)
	again := only(t, c, now, f, Acquire)
	assert.Equal(t, "2", again.Record.Version, "the write competes with the release")
	assert.Equal(t, Waiting, c.State().Stage)
}

// A late answer to a read may name this pod as the holder, although the pod has released the slot
// since. The API server then refuses a second release. If the watch is broken, only another read
// shows that the Lease is free.
func TestRefusedReleaseIsRepeatedOnlyAfterARead(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	f.Compete = false
	mine := lease.Record{UID: free.UID, Version: "1", Holder: "a_u", Hold: "1", Duration: 30 * time.Second}
	only(t, c, 0, f, Look).Read(0, mine)
	release := only(t, c, 0, f, Release)
	require.Error(t, c.answered(time.Second, release, Answer{Err: errors.New("old"), Conflict: true}))
	sent, wake := kinds(c, time.Second, f)
	require.Empty(t, sent)
	sent, _ = kinds(c, wake, f)
	require.Equal(t, []Kind{EndLook, Look}, sent, "the refused version is old")
	sent, _ = kinds(c, wake+time.Minute, f)
	require.Empty(t, sent, "the read has no answer yet")
	look := c.need.slots[0].look.number
	Action{slot: c.need.slots[0], look: look}.Read(wake+time.Minute, mine)
	only(t, c, wake+time.Minute, f, Release)
}

// An old manifest of a Lease can name a hold of this pod that is over. Another pod may have held the
// deleted Lease since then.
func TestProofNeverFreesAReplacedLease(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	held := lease.Record{UID: free.UID, Version: "5", Holder: "z_u", Hold: "h5", Duration: 30 * time.Second}
	old := lease.Record{UID: "uid-2", Version: "9", Holder: c.need.Self.Identity, Hold: "h3", Duration: 30 * time.Second}
	look := only(t, c, 0, f, Look)
	look.Read(0, held)
	look.Gone(10 * time.Second)
	only(t, c, 11*time.Second, f, Look).Read(11*time.Second, old)
	writes := func(a Action) bool { return a.Kind == Acquire || a.Kind == Release }
	for now := 11 * time.Second; now < 30*time.Second; now += time.Second {
		actions, wake := next(c, now, f)
		require.False(t, slices.ContainsFunc(actions, writes), "%v: %v", now, actions)
		require.LessOrEqual(t, wake, 30*time.Second)
		f.Compete = !f.Compete // a pod that does not compete must not release the Lease, either
	}
	f.Compete = true
	assert.Equal(t, "9", only(t, c, 30*time.Second, f, Acquire).Record.Version)
}

// With a lease of an hour, a pod keeps its first slot for an hour while it cannot get the second. Then
// the pod gives the first slot back. If no other pod wants that slot, the pod must soon try again.
func TestPodStandsAsideBrieflyDespiteLongLeases(t *testing.T) {
	random := modelRandom(1)
	c := newClaim(Claim{Need: api.Need{Slots: []string{"a", "b"}}, Self: self(t, "p", time.Hour), Random: &random}, 0)
	leases := map[string]lease.Record{"a": {UID: "a", Version: "1"}, "b": {UID: "b", Version: "1"}}
	facts := Facts{Compete: true}
	version, backAt := 1, time.Duration(0)
	for now := time.Second; now < 2*time.Hour; {
		facts.Wall = time.Unix(0, int64(now))
		actions, wake := next(c, now, facts)
		for _, a := range actions {
			switch {
			case a.Kind == Look:
				a.Read(now, leases[a.Slot])
			case a.Kind == Acquire && a.Slot == "b":
				require.Error(t, c.answered(now, a, Answer{Err: errors.New("no right"), Forbidden: true}))
			case a.Kind == Acquire && backAt > 0:
				assert.GreaterOrEqual(t, now-backAt, slowest, "a standby without a watch needs the time of a read")
				assert.LessOrEqual(t, now-backAt, 30*time.Second)
				return
			case a.Kind == Acquire, a.Kind == Renew, a.Kind == Release:
				version++
				a.Record.Version = strconv.Itoa(version)
				leases[a.Slot] = a.Record
				require.NoError(t, c.answered(now, a, Answer{Record: leases[a.Slot]}))
			case a.Kind == StandBack:
				backAt = now
			}
		}
		if len(actions) == 0 {
			now = max(now+time.Millisecond, wake)
		}
	}
	assert.Fail(t, "the pod does not try again", "it stood back at %v", backAt)
}

// The API server may store a write after its sender has given up, and also after a read that shows the Lease as it
// was. Until the Lease has another version, the pod may still take the slot by that write.
func TestPodThatMayStillTakeTheSlotPromisesNothing(t *testing.T) {
	c, f, free := claimOfOneSlot(t)
	held := free
	held.Holder, held.Hold, held.Duration = "b_u", "4711", 750*time.Second
	held.Supporters = api.Supporters{Wait: 30 * time.Second, Key: "k", IDs: []string{api.SupporterID("a_u", "")}}
	only(t, c, 0, f, Look).Read(0, held)
	const lasts = time.Second
	assert.True(t, c.Promise(0, "4711", lasts))
	assert.False(t, c.Promise(0, "4712", lasts), "another hold")

	now := 40 * time.Second
	take := only(t, c, now, f, Acquire)
	assert.False(t, c.Promise(now, "4711", lasts), "the write is under way")
	require.Error(t, c.answered(now, take, Answer{Err: errors.New("timeout")}))
	assert.False(t, c.Promise(now, "4711", lasts), "its answer is lost")
	now += 5 * time.Second
	only(t, c, now, f, Look).Read(now, held)
	assert.False(t, c.Promise(now, "4711", lasts), "it may still be stored")

	renewed := held
	renewed.Version, renewed.RenewTime = "9", time.Unix(9, 0)
	c.need.slots[0].view.Read(now, renewed)
	assert.True(t, c.Promise(now, "4711", lasts), "it cannot be stored any more")
}
