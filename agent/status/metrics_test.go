// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestOnlyAHolderThatWantsSupportersCountsThem(t *testing.T) {
	for name, c := range map[string]struct {
		failsafe api.Failsafe
		want     bool
	}{
		"no failsafe":      {},
		"failsafe, alone":  {failsafe: api.Failsafe{Outage: 10 * time.Minute, Alone: true}},
		"failsafe":         {failsafe: api.Failsafe{Outage: 10 * time.Minute}, want: true},
		"an outage of 9 s": {failsafe: api.Failsafe{Outage: 9 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := c.failsafe.Budget(api.DefaultLeaseDuration)
			require.NoError(t, err)
			m := NewMetrics(func() time.Duration { return time.Minute }, time.Second, "Deployment/web", b)
			says := func(n string) {
				t.Helper()
				if c.want && n != "" {
					assert.Contains(t, m.Text(), "\nmetaparticle_supporters "+n+"\n")
				} else {
					assert.NotContains(t, m.Text(), "\nmetaparticle_supporters ")
				}
			}
			says("")
			m.Holding(2 * time.Minute)
			says("0")
			m.Supporters(2)
			says("2")
			m.Holding(0)
			says("")
			m.Holding(3 * time.Minute)
			says("0")
		})
	}
}

// In an outage, promises move the deadline each 2 s. With the default lease duration it lies 25 s after the sending
// of a renewal or of an ask, and what moves it counts as late once less than 15 s are left.
func TestPromisesInTimeAreNotLateRenewals(t *testing.T) {
	for name, c := range map[string]struct {
		first time.Duration // since the last stored renewal
		late  string
	}{"in time": {8 * time.Second, "0"}, "late": {11 * time.Second, "1"}} {
		t.Run(name, func(t *testing.T) {
			b, err := api.Failsafe{Outage: 10 * time.Minute}.Budget(api.DefaultLeaseDuration)
			require.NoError(t, err)
			now := time.Hour
			m := NewMetrics(func() time.Duration { return now }, time.Second, "Deployment/web", b)
			m.Holding(now + b.Deadline())
			now += c.first
			for range 300 {
				m.Holding(now + b.Deadline())
				now += 2 * time.Second
			}
			assert.Contains(t, m.Text(), "\nmetaparticle_renewals_late_total "+c.late+"\n")
		})
	}
}
