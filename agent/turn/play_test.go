// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// tick is the time that passes in one step of a play.
const tick = 500 * time.Millisecond

// play simulates one slot and pods of several revisions that compete for the slot.
type play struct {
	t    *testing.T
	now  time.Duration
	slot Slot
	// othersAt is the instant until which only the named successor may acquire the slot.
	othersAt time.Duration
	holds    int
	ask      api.Word
	pods     []*actor
	// The field "turns" has, for each revision, the instants at which a pod of that revision
	// acquired the slot.
	turns map[api.Revision][]time.Duration
}

// actor is one pod of a play.
type actor struct {
	Pod
	// The field "starts" is the time until the application serves; zero if it never serves. The
	// field "lasts" is the time after which the application exits; zero if it never exits.
	starts, lasts time.Duration
	// The field "restarts" is the instant until which the container of the actor is down.
	restarts time.Duration
	hold     HolderFacts
	waiting  StandbyFacts
	// ready reports that a rollout counts the pod as Ready now. The field readyOnce reports that
	// a rollout has counted the pod as Ready at least once.
	ready, readyOnce bool
	gone             bool
}

func newPlay(t *testing.T, pods ...*actor) *play {
	return &play{t: t, now: time.Hour, slot: Slot{Known: true}, pods: pods, turns: map[api.Revision][]time.Duration{}}
}

func actors(count int, name string, revision api.Revision, starts, lasts time.Duration) []*actor {
	var all []*actor
	for i := range count {
		all = append(all, &actor{Pod: pod(fmt.Sprintf("%s%d", name, i+1), revision), starts: starts, lasts: lasts})
	}
	return all
}

func (p *play) holder() *actor {
	for _, a := range p.pods {
		if a.Identity == p.slot.Holder {
			return a
		}
	}
	return nil
}

// pass simulates the slot and the pods for the time d.
func (p *play) pass(d time.Duration) {
	for end := p.now + d; p.now < end; p.now += tick {
		if a := p.holder(); a != nil {
			p.act(a)
		}
		for _, a := range p.pods {
			if !a.gone && a.Identity != p.slot.Holder {
				p.standBy(a)
			}
		}
		p.take()
	}
}

// act simulates one step of the holder.
func (p *play) act(a *actor) {
	age := p.now - a.hold.Since
	a.hold.Serves = a.starts != 0 && age >= a.starts
	a.hold.Serving = a.hold.Since + a.starts
	a.hold.Wishes = api.Words{p.ask}
	got := a.Holder(p.now, wall, a.hold)
	a.hold.Rollout, p.slot.Rollout = got.Rollout, got.Rollout
	a.ready = a.hold.Serves && !got.Proving
	a.readyOnce = a.readyOnce || a.ready
	switch {
	case a.lasts != 0 && age >= a.lasts:
		a.restarts = p.now + 20*time.Second
		a.waiting.Failed = true
		p.release(a, "", api.Revision{})
	case got.Failed:
		a.waiting.Failed = true
		p.release(a, "", api.Revision{})
	case got.To.Identity != "":
		p.release(a, got.To.Identity, got.To.Revision)
	}
}

func (p *play) release(a *actor, to string, turn api.Revision) {
	rollout, successor := a.Released(p.slot, to, turn)
	p.slot = Slot{Known: true, FreeAt: p.now, Rollout: Parse(rollout.String()), Successor: successor}
	p.othersAt = 0
	if successor != "" {
		p.othersAt = p.now + time.Second
	}
}

// standBy simulates one step of a standby.
func (p *play) standBy(a *actor) {
	a.waiting.Whole = p.now >= a.restarts
	got := a.Standby(p.now, p.slot, a.waiting)
	if !got.Due {
		a.waiting.Due = 0
	} else if a.waiting.Due == 0 {
		a.waiting.Due = p.now
	}
	a.ready = got.Ruling == Ready || got.Ruling == Free && p.holder() != nil && p.holder().hold.Serves
	a.readyOnce = a.readyOnce || a.ready
	switch {
	case got.Wish != "":
		p.ask = api.Word{Say: got.Wish, Identity: a.Identity, Revision: a.Revision}
	case p.ask.Identity == a.Identity:
		p.ask = api.Word{}
	}
}

// The method "take" gives a free slot to one pod: the successor, or the first pod whose instant
// TakeFrom has come.
func (p *play) take() {
	if p.slot.Holder != "" {
		return
	}
	for _, a := range p.pods {
		named := p.slot.Successor == a.Identity
		may := p.now >= a.Standby(p.now, p.slot, a.waiting).TakeFrom && p.now >= a.restarts
		if a.gone || !may || !named && p.now < p.othersAt {
			continue
		}
		p.holds++
		hold := fmt.Sprintf("h%d", p.holds)
		rollout := Parse(a.Acquired(p.now, wall, p.slot, hold).String())
		p.turns[a.Revision] = append(p.turns[a.Revision], p.now)
		a.hold = HolderFacts{ID: hold, Since: p.now, Rollout: rollout}
		p.slot = Slot{
			Known: true, Holder: a.Identity, Hold: hold, Revision: a.Revision, Rollout: rollout, FreeAt: pace.Never, Since: p.now,
		}
		return
	}
}

// between returns the number of instants in the span that begins at the argument "from" and ends
// before the argument "to".
func between(all []time.Duration, from, to time.Duration) (count int) {
	for _, at := range all {
		if at >= from && at < to {
			count++
		}
	}
	return count
}

// ready returns the number of those pods of the revision that are Ready and not gone.
func (p *play) ready(revision api.Revision) (count int) {
	for _, a := range p.pods {
		if a.Revision == revision && a.ready && !a.gone {
			count++
		}
	}
	return count
}

func TestBrokenRevisionRarelyStopsTheOldRevision(t *testing.T) {
	for name, broken := range map[string][]*actor{
		"exits at once":             actors(1, "b", newer, tick, tick),
		"exits before it is proven": actors(1, "b", newer, time.Second, 9*time.Second),
		"never serves":              actors(1, "b", newer, 0, 0),
		"three pods":                actors(3, "b", newer, tick, tick),
		"serves late, exits":        actors(2, "b", newer, 50*time.Second, 55*time.Second),
	} {
		for _, olds := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d old pods", name, olds), func(t *testing.T) {
				p := newPlay(t, actors(olds, "a", old, 2*time.Second, 0)...)
				p.pass(time.Hour)
				began := p.now
				for _, b := range broken {
					p.pods = append(p.pods, &actor{Pod: b.Pod, starts: b.starts, lasts: b.lasts})
				}
				p.pass(3 * time.Hour)
				turns := p.turns[newer]
				require.NotEmpty(t, turns)
				assert.LessOrEqual(t, between(turns, began, began+time.Hour), 4)
				for hour := 1; hour < 3; hour++ {
					from := began + time.Duration(hour)*time.Hour
					assert.Equal(t, 1, between(turns, from, from+time.Hour), "hour %d", hour)
				}
				for _, a := range p.pods[olds:] {
					assert.False(t, a.readyOnce, "a rollout would go on")
				}
				assert.Equal(t, olds, p.ready(old), "the old version serves")
			})
		}
	}
}

func TestWorkingRevisionStopsTheOldRevisionOnlyOnce(t *testing.T) {
	p := newPlay(t, actors(3, "a", old, time.Second, 0)...)
	p.pass(time.Hour)
	p.pods = append(p.pods, actors(2, "b", newer, 2*time.Second, 0)...)
	began := p.now
	p.pass(2*time.Second + Proof - tick)
	assert.Zero(t, p.ready(newer))
	assert.Equal(t, 3, p.ready(old))
	p.pass(2 * time.Second)
	assert.Equal(t, 2, p.ready(newer))
	p.pass(3 * time.Hour)
	assert.Equal(t, []time.Duration{began + tick}, p.turns[newer])
	assert.Len(t, p.turns[old], 1)
	assert.Empty(t, p.slot.Rollout.Turns, "a proven revision needs no count")
}

func TestNewRevisionReplacesRevisionThatNeverServes(t *testing.T) {
	p := newPlay(t, actors(2, "a", old, 0, 0)...)
	p.pass(time.Hour)
	p.pods = append(p.pods, actors(1, "b", newer, 2*time.Second, 0)...)
	p.pass(15 * time.Second)
	assert.Equal(t, "b1_u", p.slot.Holder)
	assert.Equal(t, newer, p.slot.Rollout.Proven)
	assert.Equal(t, 1, p.ready(newer))
}

func TestRepairedRevisionReplacesBrokenRevisionAtOnce(t *testing.T) {
	p := newPlay(t, actors(2, "a", old, time.Second, 0)...)
	p.pass(time.Hour)
	p.pods = append(p.pods, actors(2, "b", newer, 0, 0)...)
	p.pass(30 * time.Second)
	require.Equal(t, newer, p.slot.Revision, "the broken revision is in its turn")
	p.pods = append(p.pods, actors(2, "c", newest, time.Second, 0)...)
	p.pass(15 * time.Second)
	assert.Equal(t, newest, p.slot.Rollout.Proven)
	assert.Equal(t, 2, p.ready(newest))
}

func TestTwoBrokenRevisionsAlternateSlowly(t *testing.T) {
	p := newPlay(t, actors(2, "a", old, 0, 0)...)
	p.pass(time.Hour)
	began := p.now
	p.pods = append(p.pods, actors(2, "b", newer, 0, 0)...)
	p.pass(3 * time.Hour)
	assert.LessOrEqual(t, between(p.turns[newer], began, began+time.Hour), 4)
	assert.LessOrEqual(t, between(p.turns[newer], began+time.Hour, p.now), 2)
}

func TestUndoOfStalledRolloutKeepsOldPodsReady(t *testing.T) {
	p := newPlay(t, actors(2, "a", old, time.Second, 0)...)
	p.pass(time.Hour)
	broken := actors(1, "b", newer, 0, 0)
	p.pods = append(p.pods, broken...)
	p.pass(5 * time.Minute)
	broken[0].gone = true
	p.pods = append(p.pods, actors(1, "a9", undone, time.Second, 0)...)
	p.pass(time.Minute)
	assert.Equal(t, 2, p.ready(old))
	assert.Equal(t, 1, p.ready(undone))
	stops := len(p.turns[old])
	p.pass(time.Hour)
	assert.Len(t, p.turns[old], stops, "the same template needs no turn")
}

func TestNewRevisionRunsAfterLastOldPodEnds(t *testing.T) {
	olds := actors(1, "a", old, time.Second, 0)
	p := newPlay(t, olds...)
	p.pass(time.Hour)
	p.pods = append(p.pods, actors(1, "b", newer, 0, 0)...)
	p.pass(2 * time.Minute)
	require.Equal(t, old, p.slot.Revision, "the turn has failed")
	olds[0].gone = true
	p.release(olds[0], "", api.Revision{})
	p.pass(LastResort - time.Second)
	assert.Empty(t, p.slot.Holder)
	p.pass(2 * time.Second)
	assert.Equal(t, newer, p.slot.Revision)
}

func TestProvenRevisionThatCrashesGetsFewTurns(t *testing.T) {
	p := newPlay(t, actors(2, "a", old, time.Second, 0)...)
	p.pass(time.Hour)
	began := p.now
	p.pods = append(p.pods, actors(2, "b", newer, time.Second, time.Minute)...)
	p.pass(time.Hour)
	assert.LessOrEqual(t, between(p.turns[newer], began, p.now), 5)
	assert.Equal(t, 2, p.ready(old))
}
