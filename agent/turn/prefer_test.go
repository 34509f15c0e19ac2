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

// The application began to serve with the hold, an hour after the machine's boot, and fails its probes
// since the time "fails" after that.
func TestApplicationHangsOnceItHasFailedItsProbesForLong(t *testing.T) {
	const began, s = time.Hour, time.Second
	turn := api.Rollout{Hold: "h1", Yielder: "a1_u", From: old}
	for name, c := range map[string]struct {
		fails   time.Duration
		rollout api.Rollout
		change  func(h *HolderFacts)
		at      time.Duration // zero for never
	}{
		"after a minute":                   {fails: 100 * s, at: 160 * s},
		"not in the first minute":          {fails: 1 * s, change: func(h *HolderFacts) { h.YieldAfter = 10 * s }, at: 60 * s},
		"later after two hangs":            {fails: 100 * s, rollout: api.Rollout{Hangs: 2}, at: 240 * s},
		"an hour after many":               {fails: 100 * s, rollout: api.Rollout{Hangs: api.MostTurns}, at: 3600 * s},
		"a long proof forgives":            {fails: api.TurnForget, rollout: api.Rollout{Hangs: 9}, at: api.TurnForget + 60*s},
		"an application that never served": {change: func(h *HolderFacts) { h.Failing, h.Serving = 0, 0 }},
		"an application that serves":       {fails: 100 * s, change: func(h *HolderFacts) { h.Serves, h.Failing = true, 0 }},
		"a slot that is paused":            {fails: 100 * s, change: func(h *HolderFacts) { h.Paused = true }},
		"a pod that is alone":              {fails: 100 * s, change: func(h *HolderFacts) { h.Alone = true }},
		"without the annotation":           {fails: 100 * s, change: func(h *HolderFacts) { h.YieldAfter = 0 }},
		"a turn ends by itself":            {fails: 100 * s, rollout: turn},
	} {
		for _, revision := range []api.Revision{old, {}} {
			t.Run(name+", revision "+revision.String(), func(t *testing.T) {
				h := HolderFacts{ID: "h1", Since: began, Serving: began, Failing: began + c.fails, YieldAfter: time.Minute, Rollout: c.rollout}
				if c.change != nil {
					c.change(&h)
				}
				p := pod("a1", revision)
				if c.at == 0 {
					assert.False(t, p.Holder(began+24*time.Hour, wall, h).Hangs)
					return
				}
				before := p.Holder(began+c.at-1, wall, h)
				assert.False(t, before.Hangs)
				assert.Equal(t, began+c.at, before.Wake)
				assert.True(t, p.Holder(began+c.at, wall, h).Hangs)
			})
		}
	}
}

// A preference moved the slot here, where the application does not begin to serve.
func TestPreferredPodThatNeverServesHangs(t *testing.T) {
	const began, s = time.Hour, time.Second
	for name, c := range map[string]struct {
		change func(p *Pod, h *HolderFacts)
		at     time.Duration // zero for never
	}{
		"for a minute":                       {at: 60 * s},
		"for as long as its probes allow":    {change: func(p *Pod, _ *HolderFacts) { p.Startup = 90 * s }, at: 90 * s},
		"later after two hangs":              {change: func(_ *Pod, h *HolderFacts) { h.Rollout.Hangs = 2 }, at: 240 * s},
		"it has served":                      {change: func(_ *Pod, h *HolderFacts) { h.Serving, h.Failing = began+s, began+20*s }},
		"it served under an earlier process": {change: func(_ *Pod, h *HolderFacts) { h.Resumed, h.Served, h.Failing = true, true, began }},
		"no preference moved the slot":       {change: func(_ *Pod, h *HolderFacts) { h.Rollout.Moved.Wish = "" }},
		"a newer revision, in its turn":      {change: func(_ *Pod, h *HolderFacts) { h.Rollout.Moved.Wish, h.Rollout.Yielder = api.WantsNewer, "a1_u" }},
		"the slot is paused":                 {change: func(_ *Pod, h *HolderFacts) { h.Paused = true }},
		"no other pod is there":              {change: func(_ *Pod, h *HolderFacts) { h.Alone = true }},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod("a2", old)
			h := HolderFacts{ID: "h1", Since: began, Rollout: api.Rollout{Hold: "h1", Proven: old, Moved: api.Moved{From: "a1_u", Why: "Yielded", Wish: api.WantsPreferred}}}
			if c.change != nil {
				c.change(&p, &h)
			}
			if c.at == 0 {
				assert.False(t, p.Holder(began+24*time.Hour, wall, h).Hangs)
				return
			}
			assert.False(t, p.Holder(began+c.at-1, wall, h).Hangs)
			assert.True(t, p.Holder(began+c.at, wall, h).Hangs)
		})
	}
}

// Nobody took the slot after the hang, so the pod took it back.
func TestHolderThatTookItsSlotBackAfterAHangHangsAgain(t *testing.T) {
	p := pod("a2", old)
	r := p.Hung(HolderFacts{ID: "h1", Since: time.Hour, Rollout: api.Rollout{Hold: "h1", Proven: old}})
	r.Moved = api.Moved{From: p.Identity, Why: "Hung"}
	r = p.Acquired(2*time.Hour, wall, Slot{Known: true, Rollout: r}, "h2")
	h := HolderFacts{ID: "h2", Since: 2 * time.Hour, Rollout: r}
	assert.False(t, p.Holder(2*time.Hour+time.Second, wall, h).Hangs)
	assert.True(t, p.Holder(4*time.Hour, wall, h).Hangs)
}

func TestRolloutRecordCountsHangsUntilAnApplicationServesForLong(t *testing.T) {
	a1 := pod("a1", old)
	h := HolderFacts{ID: "h1", Serving: time.Second, Failing: time.Minute, YieldAfter: time.Minute, Rollout: with(api.Rollout{Proven: old, Hangs: 1}, 2)}
	r := a1.Hung(h)
	assert.Equal(t, with(api.Rollout{Proven: old, Hangs: 2, Hung: "a1_u"}, 2), r)
	assert.Equal(t, 4, h.Failures(time.Minute, 3))
	h.Failing = time.Second + api.TurnForget
	assert.Equal(t, 1, a1.Hung(h).Hangs)
	assert.Equal(t, 1, h.Failures(h.Failing, 3), "it had served for long")
	h.Failing = 0
	assert.Equal(t, 1, h.Failures(24*time.Hour, 3), "it served until its node was cut off")
	assert.Equal(t, 4, h.Failures(time.Minute, 3), "its node is cut off every minute")

	left, to := a1.Released(Slot{Known: true, Holder: "a1_u", Hold: "h1", Rollout: r}, "a2_u", api.Revision{})
	assert.Equal(t, "a2_u", to)
	assert.Equal(t, with(api.Rollout{Proven: old, Hangs: 2, Hung: "a1_u", Yielder: "a1_u", From: old}, 2), left, "no turn")
	r = pod("a2", old).Acquired(0, wall, Slot{Known: true, Successor: to, Rollout: left}, "h2")
	assert.Equal(t, "a1_u 2", r.Hung+" "+string(rune('0'+r.Hangs)))
	served := HolderFacts{ID: "h2", Serves: true, Serving: time.Second, Rollout: r}
	assert.Equal(t, 2, pod("a2", old).Holder(api.TurnProof+api.TurnForget, wall, served).Rollout.Hangs)
	r = pod("a2", old).Holder(time.Second+api.TurnProof+api.TurnForget, wall, served).Rollout
	assert.Zero(t, r.Hangs)
	assert.Empty(t, r.Hung)
}

func TestPreferredStandbyWishesForTheSlot(t *testing.T) {
	settled := StandbyFacts{Whole: true, Preferred: true, ReadySince: time.Second}
	for name, c := range map[string]struct {
		pod    Pod
		change func(s *Slot, w *StandbyFacts)
		wish   api.Say
		wake   time.Duration
	}{
		"Ready for long":             {pod: pod("a2", old), wish: api.WantsPreferred},
		"after an undo":              {pod: pod("a2", undone), wish: api.WantsPreferred},
		"Ready for a moment":         {pod: pod("a2", old), change: func(_ *Slot, w *StandbyFacts) { w.ReadySince = 2 * time.Second }, wake: 2*time.Second + api.PreferSettled},
		"failed twice before":        {pod: pod("a2", old), change: func(_ *Slot, w *StandbyFacts) { w.Failures = 2 }, wake: time.Second + 4*api.PreferSettled},
		"not Ready":                  {pod: pod("a2", old), change: func(_ *Slot, w *StandbyFacts) { w.ReadySince = 0 }},
		"not preferred":              {pod: pod("a2", old), change: func(_ *Slot, w *StandbyFacts) { w.Preferred = false }},
		"image missing":              {pod: pod("a2", old), change: func(_ *Slot, w *StandbyFacts) { w.Whole = false }},
		"the holder would not yield": {pod: pod("a2", old), change: func(s *Slot, _ *StandbyFacts) { s.Rollout.Prefers = false }},
		"hung last":                  {pod: pod("a2", old), change: func(s *Slot, _ *StandbyFacts) { s.Rollout.Hung = "a2_u" }},
		"another pod hung last":      {pod: pod("a2", old), change: func(s *Slot, _ *StandbyFacts) { s.Rollout.Hung = "a3_u" }, wish: api.WantsPreferred},
		"another template":           {pod: pod("a2", api.Revision{Workload: workload, Number: 5, Hash: "older"})},
		"a newer template":           {pod: pod("b1", newer), wish: api.WantsNewer},
		"another workload":           {pod: pod("x", other)},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := heldBy(pod("a1", old), api.YieldsNow), settled
			s.Rollout.Prefers = true
			if c.change != nil {
				c.change(&s, &w)
			}
			got := c.pod.Standby(time.Second+api.PreferSettled, s, w)
			assert.Equal(t, c.wish, got.Wish)
			if c.wake == 0 {
				c.wake = pace.Never
			}
			assert.Equal(t, c.wake, got.Wake)
			assert.Equal(t, c.wish == api.WantsNewer, got.NotReady, "a wish for a preference makes no pod unready")
		})
	}
}

func TestHolderYieldsToPreferredPodOnceSettled(t *testing.T) {
	prefers := func(identity string, r api.Revision) api.Words {
		return api.Words{{Say: api.WantsPreferred, Identity: identity, Revision: r}}
	}
	waiting := append(prefers("a2_u", old), api.Word{Say: api.WantsNewer, Identity: "b1_u", Revision: newer})
	for name, c := range map[string]struct {
		wishes  api.Words
		change  func(p *Pod, h *HolderFacts)
		now     time.Duration
		prefers bool
		to      string
	}{
		"served for long":          {wishes: prefers("a2_u", old), now: api.PreferSettled, prefers: true, to: "a2_u"},
		"served for too short":     {wishes: prefers("a2_u", old), now: api.PreferSettled - 1},
		"nobody wishes":            {now: api.PreferSettled, prefers: true},
		"does not serve":           {wishes: prefers("a2_u", old), now: api.PreferSettled, change: func(_ *Pod, h *HolderFacts) { h.Serves = false }},
		"is preferred, too":        {wishes: prefers("a2_u", old), now: api.PreferSettled, change: func(_ *Pod, h *HolderFacts) { h.Prefers = false }},
		"is paused":                {wishes: prefers("a2_u", old), now: api.PreferSettled, change: func(_ *Pod, h *HolderFacts) { h.Paused = true }},
		"is not proven":            {wishes: prefers("a2_u", old), now: api.PreferSettled, change: func(p *Pod, h *HolderFacts) { p.MinReady, h.Rollout.Proven = api.PreferSettled, other }},
		"that pod hung last":       {wishes: prefers("a2_u", old), now: api.PreferSettled, prefers: true, change: func(_ *Pod, h *HolderFacts) { h.Rollout.Hung = "a2_u" }},
		"another template":         {wishes: prefers("b1_u", newer), now: api.PreferSettled},
		"an older template":        {wishes: prefers("z_u", api.Revision{Workload: workload, Number: 5, Hash: "x"}), now: api.PreferSettled, prefers: true},
		"a newer template waits":   {wishes: waiting, now: api.PreferSettled, change: func(_ *Pod, h *HolderFacts) { h.Rollout = with(h.Rollout, 4) }},
		"a newer template failed":  {wishes: prefers("a2_u", old), now: api.PreferSettled, change: func(_ *Pod, h *HolderFacts) { h.Rollout = with(h.Rollout, 4) }},
		"a newer template may try": {wishes: prefers("a2_u", old), now: api.PreferSettled, prefers: true, to: "a2_u", change: func(_ *Pod, h *HolderFacts) { h.Rollout = with(h.Rollout, 1) }},
		"a newer template is next": {wishes: waiting, now: api.PreferSettled, to: "b1_u"},
	} {
		t.Run(name, func(t *testing.T) {
			p, h := pod("a1", old), HolderFacts{ID: "h1", Since: time.Hour, Serves: true, Serving: time.Hour, Prefers: true, Wishes: c.wishes, Rollout: api.Rollout{Hold: "h1", Proven: old}}
			if c.change != nil {
				c.change(&p, &h)
			}
			got := p.Holder(time.Hour+c.now, wall, h)
			assert.Equal(t, c.prefers, got.Rollout.Prefers)
			assert.Equal(t, c.to, got.To.Identity)
			if c.now < api.PreferSettled {
				assert.Equal(t, time.Hour+api.PreferSettled, got.Wake)
			}
		})
	}
}
