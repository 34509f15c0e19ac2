// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// With a lease of an hour, a pod keeps its first slot for an hour while it cannot get the second. Then
// the pod gives the first slot back. If no other pod wants that slot, the pod must soon try again.
func TestPodStandsAsideBrieflyDespiteLongLeases(t *testing.T) {
	random := modelRandom(1)
	c := newClaim(Claim{Slots: []string{"a", "b"}, Self: self(t, "p", time.Hour), Random: &random}, 0)
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
				require.Error(t, c.Answered(now, a, Answer{Err: errors.New("no right"), Forbidden: true}))
			case a.Kind == Acquire && backAt > 0:
				assert.GreaterOrEqual(t, now-backAt, slowest, "a standby without a watch needs the time of a read")
				assert.LessOrEqual(t, now-backAt, 30*time.Second)
				return
			case a.Kind == Acquire, a.Kind == Renew, a.Kind == Release:
				version++
				a.Record.Version = strconv.Itoa(version)
				leases[a.Slot] = a.Record
				require.NoError(t, c.Answered(now, a, Answer{Record: leases[a.Slot]}))
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
