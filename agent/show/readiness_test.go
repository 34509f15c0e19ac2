// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// status returns the status of a standby that sees the holders of its slots.
func status(c ReadinessConfig, holders ...string) Appearance {
	c.Mode, c.Workload = api.ReadinessHolder, "Deployment/a"
	var slots []Slot
	for i, holder := range holders {
		c.Slots = append(c.Slots, string(rune('a'+i)))
		slots = append(slots, Slot{Name: c.Slots[i], Known: true, ExpiresAt: instant.Never, Record: lease.Record{
			UID: "u", Holder: holder, Hold: "h", Notes: lease.Notes{Workload: c.Workload},
		}})
	}
	return NewReadiness(c).Standby(time.Second, slots, Turn{}, true).Appearance
}

// Each change of the status is a write of the pod. In a handover the standbys' writes would delay the
// pod that acquires the slot.
func TestSemaphoreHandoverNeverChangesStatusOfStandbys(t *testing.T) {
	anySlot := ReadinessConfig{Any: true}
	assert.Equal(t, status(anySlot, "b_1", "c_1"), status(anySlot, "b_1", "d_1"))
	assert.Equal(t, status(anySlot, "b_1", "c_1"), status(anySlot, "b_1", ""))
	assert.False(t, status(anySlot, "b_1", "c_1").Ready)
}

func TestSingletonStandbyWithReadinessHolderNamesTheHolder(t *testing.T) {
	assert.Equal(t, "b holds a", status(ReadinessConfig{}, "b_1").Message)
}
