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

// self describes a pod with this name and lease duration.
func self(t testing.TB, name string, duration time.Duration) lease.Self {
	b, err := api.NewBudget(duration)
	require.NoError(t, err)
	return lease.Self{Identity: api.Identity(name, "u"), BootID: "boot-1", Budget: b}
}

func TestPreviousHolderRetriesRequestsWithinItsHeadStart(t *testing.T) {
	c := newClaim(Claim{Slots: []string{"lock.a"}, Self: self(t, "a", api.DefaultLeaseDuration), Random: rand.NewPCG(1, 1)}, 0)
	s := c.need.slots[0]
	s.look.misses = 20
	worst := func() (d time.Duration) {
		for range 100 {
			d = max(d, s.backoff(0, 0))
		}
		return d
	}
	b := c.need.Self.Budget
	assert.Greater(t, worst(), b.Renew/2)
	assert.LessOrEqual(t, worst(), b.Renew)
	s.view.Read(1, lease.Record{UID: "u", Version: "1", Holder: c.need.Self.Identity})
	assert.LessOrEqual(t, worst()+b.RequestTimeout, b.Renew, "within the time that the standbys leave")
}
