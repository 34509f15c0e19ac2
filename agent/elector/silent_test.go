// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// The holder is dead, and no fault follows. The standby itself ends its silent watch, and reads the
// Lease again. No outage has kept the holder from its renewals, so the holder needs no head start.
func TestSilentWatchNeverDelaysTakeoverFromDeadHolder(t *testing.T) {
	for _, duration := range []time.Duration{30 * time.Second, 10 * time.Minute, 16 * time.Minute, 22 * time.Minute, 25*time.Minute + 30*time.Second, time.Hour} {
		t.Run(duration.String(), func(t *testing.T) {
			m := semaphore(t, 0, 1)
			m.store(m.leases[0], lease.Record{UID: "uid-0", Holder: "z_u", Hold: "h", Duration: duration})
			p := &modelPod{name: "a", self: self(t, "a", duration), names: []string{"slot-0"}}
			m.join(p)
			assert.LessOrEqual(t, p.until(2*time.Hour), duration+time.Second)
		})
	}
}

// A reader never writes the intent. So the reader reads the intent again when the Lease of a dead
// writer has expired.
func TestDeadWritersIntentBlocksReadersOneLeaseDuration(t *testing.T) {
	for _, duration := range []time.Duration{15 * time.Second, 30 * time.Second, 10 * time.Minute} {
		t.Run(duration.String(), func(t *testing.T) {
			m := semaphore(t, 0, 3)
			names := []string{"slot-0", "slot-1", "slot-2"}
			for _, l := range m.leases {
				m.store(l, lease.Record{UID: l.record.UID, Holder: "z_u", Hold: "h", Duration: duration})
			}
			p := &modelPod{model: m, name: "a", self: self(t, "a", duration), names: names, readers: 2, rate: 12, waiting: true}
			m.pods = append(m.pods, p)
			p.start()
			assert.LessOrEqual(t, p.until(2*time.Hour), duration+time.Second)
		})
	}
}
