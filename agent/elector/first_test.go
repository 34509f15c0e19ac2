// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// first is a claim that needs any one of 64 slots. In most tests a pod's first agent process has
// this claim.
type first struct {
	*claim
	t *testing.T
	// looked has the slots at which the claim has looked.
	looked map[string]bool
	// free reports whether a read shows the slot as free.
	free func(slot string) bool
}

func newFirst(t *testing.T, is bool, free func(slot string) bool) *first {
	c := Claim{Need: api.Need{Any: true}, First: is, Self: self(t, "a", 30*time.Second), Random: rand.NewPCG(1, 2)}
	for i := range 64 {
		c.Slots = append(c.Slots, fmt.Sprint("s.", i))
	}
	return &first{claim: newClaim(c, 0), t: t, looked: map[string]bool{}, free: free}
}

// settle answers each look until the claim begins no further look, and returns the slots of the
// acquiring writes.
func (f *first) settle(now time.Duration) (acquired []string) {
	for {
		actions, _ := next(f.claim, now, competing(now))
		looks := 0
		for _, a := range actions {
			switch a.Kind {
			case Look:
				looks++
				f.looked[a.Slot] = true
				r := lease.Record{UID: a.Slot, Version: "1"}
				if !f.free(a.Slot) {
					r.Holder, r.Hold, r.Duration = "z_1", "h", time.Hour
				}
				a.Read(now, r)
			case Acquire:
				acquired = append(acquired, a.Slot)
			case EndLook, Read, Renew, Release, StandBack:
			}
		}
		if looks == 0 {
			return acquired
		}
	}
}

func TestNewPodFindsFreeSlotWithFewLooks(t *testing.T) {
	f := newFirst(t, true, func(string) bool { return true })
	assert.Len(t, f.settle(time.Second), 1)
	assert.Len(t, f.looked, fewLooks)
}

func TestNewPodFindsTheOnlyFreeSlot(t *testing.T) {
	for i := range 64 {
		only := fmt.Sprint("s.", i)
		f := newFirst(t, true, func(slot string) bool { return slot == only })
		require.Equal(t, []string{only}, f.settle(time.Second))
	}
}

// A child of an earlier agent process may be alive. Any slot may belong to the hold of that child.
func TestRestartedAgentReadsAllSlotsBeforeItAcquires(t *testing.T) {
	f := newFirst(t, false, func(string) bool { return true })
	assert.Len(t, f.settle(time.Second), 1)
	assert.Len(t, f.looked, 64)
}
