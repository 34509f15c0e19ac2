// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestOldStandbyAsksUnprovenHolderWithoutATurn(t *testing.T) {
	b1 := pod("b1", newer)
	free := heldBy(b1, api.YieldsNow)
	served := heldBy(b1, api.YieldsNow)
	served.Rollout.Proven = newer
	for name, c := range map[string]struct {
		pod   Pod
		slot  Slot
		whole bool
		asks  bool
	}{
		"holder took a free slot":          {pod("a2", old), free, true, true},
		"image missing":                    {pod("a2", old), free, false, false},
		"holder is in its turn":            {pod("a2", old), inTurn(b1), true, false},
		"holder's revision is proven":      {pod("a2", old), served, true, false},
		"another revision is proven":       {pod("a2", api.Revision{Workload: workload, Number: 5, Hash: "older"}), free, true, false},
		"same revision as the holder":      {pod("b2", newer), free, true, false},
		"revision of another workload":     {pod("x", other), free, true, false},
		"holder's agent writes no rollout": {pod("a2", old), Slot{Known: true, Holder: "b1_u", Hold: "h1", Revision: newer, FreeAt: time.Hour}, true, false},
	} {
		assert.Equal(t, c.asks, c.pod.Standby(20*time.Second, c.slot, StandbyFacts{Whole: c.whole}).Wish == api.WantsBack, name)
	}
}

// askedBy returns the facts of a hold without a turn, which began 2 s after the boot.
func askedBy(revision api.Revision) HolderFacts {
	return HolderFacts{ID: "h1", Since: 2 * time.Second, Rollout: api.Rollout{Hold: "h1", Proven: old}, Wishes: wish("a2_u", revision)}
}

func TestServinglessUnprovenHolderYieldsToProvenRevision(t *testing.T) {
	b1 := pod("b1", newer)
	at, _ := b1.turnEnds(askedBy(old))
	yields := func(now time.Duration, h HolderFacts) string { return b1.Holder(now, wall, h).To.Identity }
	assert.Empty(t, yields(at-1, askedBy(old)), "the application has time to start")
	assert.Equal(t, "a2_u", yields(at, askedBy(old)))

	serves := askedBy(old)
	serves.Serves, serves.Serving = true, at-time.Second
	assert.Empty(t, yields(at, serves))
	paused := askedBy(old)
	paused.Paused = true
	assert.Empty(t, yields(at, paused))

	turns := askedBy(old)
	turns.Rollout.Yielder, turns.Rollout.From = "a1_u", old
	assert.True(t, b1.Holder(at, wall, turns).Failed, "a turn ends by itself")
}

func TestUnprovenHolderIsReadyOnceItHasServed(t *testing.T) {
	b1 := pod("b1", newer)
	h := askedBy(old)
	h.Serves, h.Serving = true, 10*time.Second
	early := b1.Holder(10*time.Second, wall, h)
	assert.NotEmpty(t, early.Message)
	assert.Equal(t, "the slot for revision 7, which has not served yet", early.Message)
	assert.Equal(t, 10*time.Second+api.TurnProof, early.Wake)
	assert.Empty(t, b1.Holder(10*time.Second+api.TurnProof, wall, h).Message)

	h.Rollout.Proven = api.Revision{}
	assert.Empty(t, b1.Holder(10*time.Second, wall, h).Message, "the first revision of a workload needs no proof")
	assert.NotEqual(t, pace.Never, early.Wake)
}
