// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// status returns the status of a standby that sees the holders of its slots.
func status(c ReadinessConfig, holders ...string) Appearance {
	c.Mode, c.Workload = api.ReadinessHolder, "Deployment/a"
	var slots []elector.View
	for i, holder := range holders {
		c.Slots = append(c.Slots, string(rune('a'+i)))
		slots = append(slots, elector.View{Slot: c.Slots[i], Known: true, ExpiresAt: pace.Never, Record: &lease.Record{
			UID: "u", Holder: holder, Hold: "h", Profile: lease.Profile{Workload: c.Workload},
		}})
	}
	return NewReadiness(c).Standby(time.Second, slots, Turn{}, true).Appearance
}

// Each change of the status is a write of the pod. In a handover the standbys' writes would delay the
// pod that acquires the slot.
func TestSemaphoreHandoverNeverChangesStatusOfStandbys(t *testing.T) {
	anySlot := ReadinessConfig{Need: api.Need{Any: true}}
	assert.Equal(t, status(anySlot, "b_1", "c_1"), status(anySlot, "b_1", "d_1"))
	assert.Equal(t, status(anySlot, "b_1", "c_1"), status(anySlot, "b_1", ""))
	assert.False(t, status(anySlot, "b_1", "c_1").Ready)
}

func TestSingletonStandbyWithReadinessHolderNamesTheHolder(t *testing.T) {
	assert.Equal(t, "b holds a", status(ReadinessConfig{}, "b_1").Message)
}

// If a rollout adds a claim, no pod of the old revision holds the added slot. The new pod must become
// Ready beside the old holder, or the rollout would wait for ever.
func TestSlotAddedByRolloutNeverKeepsStandbyUnready(t *testing.T) {
	for name, c := range map[string]struct {
		added, old []elector.View
		ready      bool
	}{
		"added slot is free":               {named("a", seen("", "", false)), named("b", seen("old_1", "", true)), true},
		"old holder does not serve":        {named("a", seen("", "", false)), named("b", seen("old_1", "", false)), false},
		"both slots are free":              {named("a", seen("", "", false)), named("b", seen("", "", true)), false},
		"holder of another does not serve": {named("a", seen("other_1", "", false)), named("b", seen("old_1", "", true)), false},
		"pod holds the added slot":         {named("a", seen("me_1", "", false)), named("b", seen("old_1", "", true)), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, slots := range [][]elector.View{append(c.added, c.old...), append(c.old, c.added...)} {
				r := NewReadiness(ReadinessConfig{Need: api.Need{Slots: []string{"a", "b"}}, Identity: "me_1", Workload: "Deployment/a",
					Budget: api.Budget{Duration: 30 * time.Second, Renew: 5 * time.Second}})
				standing := r.Standby(time.Second, slots, Turn{}, true)
				assert.Equal(t, c.ready, standing.Ready, standing.Message)
				if c.ready {
					assert.Equal(t, "a holder of b serves", standing.Message)
					assert.Equal(t, "10.0.0.1", r.holders(time.Second, slots).address)
				}
			}
		})
	}
}

func named(name string, slots []elector.View) []elector.View {
	slots[0].Slot = name
	return slots
}

// seen returns the only slot as the watch shows it. The argument "next" is the successor that the
// holder has named; empty for none.
func seen(holder, next string, serving bool) []elector.View {
	profile := lease.Profile{Workload: "Deployment/a", Leaving: next, Address: "10.0.0.1"}
	if serving {
		profile.Serving = time.Unix(1, 0)
	}
	return []elector.View{{Slot: "s", Known: true, Mine: holder == "me_1", ExpiresAt: pace.Never, Record: &lease.Record{
		UID: "u", Holder: holder, Hold: "h", Profile: profile,
	}}}
}

// After a leave another Ready pod forwards. So the old and the new holder's pods become Ready only
// when the handover is over, because these writes would delay the handover.
func TestHandoverIsOverBeforeItsPodsBecomeReady(t *testing.T) {
	config := ReadinessConfig{Need: api.Need{Slots: []string{"s"}}, Identity: "me_1", Workload: "Deployment/a", Budget: api.Budget{Duration: 30 * time.Second, Renew: 5 * time.Second}}
	holds := Holder{Hold: "h2", Slots: []string{"s"}, Running: true, Serves: true}
	t.Run("new holder", func(t *testing.T) {
		r := NewReadiness(config)
		assert.True(t, r.Standby(1*time.Second, seen("old_1", "", true), Turn{}, true).Ready)
		assert.Equal(t, ReadyFollows, r.Standby(2*time.Second, seen("old_1", "me_1", true), Turn{}, true).Reason)
		assert.Equal(t, ReadyFollows, r.Standby(3*time.Second, seen("", "", false), Turn{}, true).Reason)
		l := r.Holder(4*time.Second, holds)
		assert.True(t, l.Keep)
		assert.Equal(t, 4*time.Second+Calm, l.Wake)
		assert.True(t, r.Holder(4*time.Second+Calm-1, holds).Keep)
		l = r.Holder(4*time.Second+Calm, holds)
		assert.True(t, l.Ready && !l.Keep)
		assert.Equal(t, ReadyNotReady, r.Holder(5*time.Second, Holder{Hold: "h2", Slots: holds.Slots, Running: true}).Reason)
		assert.True(t, r.Holder(6*time.Second, holds).Ready, "later changes are not postponed")
	})
	t.Run("new holder without a leave", func(t *testing.T) {
		r := NewReadiness(config)
		assert.True(t, r.Standby(1*time.Second, seen("old_1", "", true), Turn{}, true).Ready)
		assert.True(t, r.Holder(4*time.Second, holds).Ready, "perhaps no other pod forwards")
	})
	t.Run("old holder", func(t *testing.T) {
		r := NewReadiness(config)
		assert.True(t, r.Holder(1*time.Second, holds).Ready)
		leaves := holds
		leaves.Leaves = true
		assert.Equal(t, ReadyLeaving, r.Holder(2*time.Second, leaves).Reason)
		l := r.Standby(3*time.Second, seen("", "", false), Turn{}, true)
		assert.True(t, l.Keep)
		assert.Equal(t, 3*time.Second+Calm, l.Wake)
		assert.Equal(t, ReadyHandingOver, r.Standby(3*time.Second+Calm, seen("", "", false), Turn{}, true).Reason)
	})
}

// The standby of a semaphore is not Ready, so each handover changes the readiness of two pods.
func TestPodWithoutPortsWritesStatusAfterTheHandover(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ReadinessConfig)
		calm   time.Duration
	}{
		"no ports":                 {func(*ReadinessConfig) {}, Calm},
		"ports":                    {func(c *ReadinessConfig) { c.Ports = api.Ports{{Number: 80}} }, 0},
		"a singleton":              {func(c *ReadinessConfig) { c.Any = false }, 0},
		"the gate named readiness": {func(c *ReadinessConfig) { c.Gate = true }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			config := ReadinessConfig{Need: api.Need{Slots: []string{"s"}, Any: true}, Identity: "me_1", Workload: "Deployment/a", Mode: api.ReadinessHolder}
			c.change(&config)
			r := NewReadiness(config)
			assert.True(t, r.Holder(1*time.Second, Holder{Hold: "h1", Slots: config.Slots, Running: true, Serves: true}).Ready)
			if c.calm > 0 {
				l := r.Standby(2*time.Second, seen("", "", false), Turn{}, true)
				assert.True(t, l.Keep)
				assert.Equal(t, 2*time.Second+c.calm, l.Wake)
			}
			l := r.Standby(2*time.Second+c.calm, seen("", "", false), Turn{}, true)
			assert.False(t, l.Keep || l.Ready)
		})
	}
}

// A status that stays after each of many short holds would be wrong for long.
func TestManyShortHoldsNeverKeepAnOldStatus(t *testing.T) {
	r := NewReadiness(ReadinessConfig{Need: api.Need{Slots: []string{"s"}, Any: true}, Identity: "me_1", Workload: "Deployment/a", Mode: api.ReadinessHolder})
	holds := Holder{Hold: "h1", Slots: []string{"s"}, Running: true, Serves: true}
	r.Holder(time.Second, holds)
	written := 0
	for at := 2 * time.Second; at < 4*time.Second; at += 90 * time.Millisecond {
		if !r.Standby(at, seen("", "", false), Turn{}, true).Keep {
			written++
		}
		if !r.Holder(at+45*time.Millisecond, holds).Keep {
			written++
		}
	}
	assert.Greater(t, written, 10)
}

// A Service does not send connections for minutes to a standby that has nobody to forward them to.
func TestStandbyOfAFailsafeIsUnreadyOnceNobodyServes(t *testing.T) {
	ordinary, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	long, err := ordinary.Failsafe(10 * time.Minute)
	require.NoError(t, err)
	assert.Equal(t, 35*time.Second, Handover(ordinary))
	assert.Equal(t, 35*time.Second, Handover(long))
}
