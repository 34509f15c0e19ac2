// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Two shims of one container may report the same start time, and their reports arrive at a new
// agent process in any order. Until the first shim is dead, its hold is not proven to be over,
// and no other shim gets a grant of that hold.
func TestShimNeverSupersedesShimWithEqualStartTime(t *testing.T) {
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := New(Config{Containers: []string{"app"}})
		// The desk has a note of the first shim's grant, so the second shim's report names the
		// hold of that grant as unproven.
		first := gate.Report{Shim: "1", Container: "app", Phase: gate.Running, Hold: "h", Began: time.Hour, Connected: true}
		second := gate.Report{Shim: "2", Container: "app", Phase: gate.Waiting, Began: time.Hour, Connected: true, Unproven: "h"}
		heard := false
		for range 12 {
			switch random.IntN(6) {
			case 0, 1:
				s.Learn(first)
				heard = true
			case 2, 3:
				s.Learn(second)
			case 4:
				first.Connected = !first.Connected
				if heard {
					s.Learn(first)
				}
			case 5:
				if first.Phase == gate.Running {
					first.Phase = gate.Draining
				}
			}
			require.False(t, s.Proven("h"), "seed %d", seed)
			for _, r := range s.Grantable("h") {
				require.Failf(t, "granted", "seed %d: %v", seed, r)
			}
		}
		dead := first
		dead.Connected, dead.Dead = false, true
		s.Learn(dead)
		second.Unproven = ""
		s.Learn(second)
		require.True(t, s.Proven("h"), "seed %d", seed)
		require.Len(t, s.Waiting(), 1)
	}
}
