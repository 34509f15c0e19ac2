// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// claimOf returns a pod's claim of two slots, after the claim has read both Leases, each with the
// given stamp. The argument "shards" is the value of [Claim.Shards]. The result "now" is the
// instant of the claim's last decision.
func claimOf(t *testing.T, shards int, stamp string) (c *claim, now time.Duration, actions []Action) {
	return claimIn(t, "", shards, stamp, "")
}

// claimIn returns a claim as claimOf does, for a pod of the given run. The first Lease has the
// given done keys.
func claimIn(t *testing.T, run string, shards int, stamp string, done api.Done) (c *claim, now time.Duration, actions []Action) {
	budget, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	self := lease.Self{Identity: "a_1", BootID: "boot", Budget: budget}
	now = time.Hour
	c = newClaim(Claim{Need: api.Need{Slots: []string{"s.0", "s.1"}, Any: true, Shards: shards, Run: run}, Self: self, Random: rand.New(rand.NewPCG(1, 2))}, now)
	for range 2 { // the claim looks at the second slot after the first answer
		looks, _ := next(c, now, competing(now))
		for _, a := range looks {
			if a.Kind == Look {
				a.Read(now, lease.Record{UID: a.Slot, Version: "1", Stamp: api.ParseStamp(stamp), Done: done})
				done = ""
			}
		}
	}
	now += time.Second
	actions, _ = next(c, now, competing(now))
	return c, now, actions
}

func competing(now time.Duration) Facts {
	return Facts{Wall: time.Unix(0, 0).Add(now), Compete: true}
}

func TestClaimAcquiresShardOnlyWithAMatchingStamp(t *testing.T) {
	for stamp, acquires := range map[string]bool{"1/2": true, "1/3": false, "1/2 closed": false, "": false} {
		_, _, actions := claimOf(t, 2, stamp)
		acquired := 0
		for _, a := range actions {
			if a.Kind == Acquire {
				acquired++
				assert.Equal(t, api.ParseStamp(stamp), a.Record.Stamp, "a write keeps the stamp")
			}
		}
		assert.Equal(t, acquires, acquired == 1, stamp)
	}
	_, _, actions := claimOf(t, 0, "")
	assert.NotEmpty(t, actions, "a claim without shards needs no stamp")
}

func TestClaimNeverAcquiresShardDoneInItsRun(t *testing.T) {
	for _, test := range []struct {
		stamp string
		done  api.Done
		slot  string
	}{
		{"1/2/a", "a", "s.1"}, {"1/2/a", "b,a", "s.1"}, {"1/2/b", "a", ""}, {"1/2", "", ""}, {"1/2/a closed", "", ""},
	} {
		slot := ""
		_, _, actions := claimIn(t, "a", 2, test.stamp, test.done)
		for _, a := range actions {
			if a.Kind == Acquire {
				slot = a.Slot
			}
		}
		assert.Equal(t, test.slot, slot, test)
	}
}

func TestHolderNoticesThatEnrollClosedTheShardsStamp(t *testing.T) {
	c, now, actions := claimOf(t, 2, "1/2")
	for _, a := range actions {
		if a.Kind == Acquire {
			stored := a.Record
			stored.Version = "2"
			require.NoError(t, c.answered(now, a, Answer{Record: stored}))
		}
	}
	_, _ = next(c, now, competing(now))
	held := c.State()
	require.Equal(t, Held, held.Stage)
	assert.Empty(t, held.Closed)

	// Meanwhile enroll has closed the stamp, so the next renewal meets a conflict.
	now += 10 * time.Second
	f := competing(now)
	f.Renew = true
	for range 3 {
		actions, _ = next(c, now, f)
		for _, a := range actions {
			switch a.Kind {
			case Renew:
				_ = c.answered(now, a, Answer{Err: lease.ErrNotStored, Conflict: true})
			case Read:
				r := c.Record(a.Slot)
				r.Version, r.Stamp = "3", api.ParseStamp("2/5 closed")
				require.NoError(t, c.answered(now, a, Answer{Record: r}))
			default:
			}
		}
		now += time.Second
	}
	assert.NotEmpty(t, c.State().Closed)
}
