// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leash

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// bench is a state with its clock.
type bench struct {
	state
	t   testing.TB
	now time.Duration
}

func newBench(t testing.TB, claims int) *bench {
	t.Helper()
	budget, err := api.NewBudget(30 * time.Second)
	require.NoError(t, err)
	names := 0
	b := &bench{t: t, now: time.Hour, state: newState(budget, func() string { names++; return fmt.Sprintf("leash-%d", names) })}
	for range claims {
		b.add()
	}
	return b
}

// act returns the orders that are due, by shim.
func (b *bench) act() map[gate.ShimID]order {
	orders, _ := b.next(b.now)
	all := map[gate.ShimID]order{}
	for _, o := range orders {
		all[o.shim] = o
	}
	return all
}

func (b *bench) waits(id gate.ShimID) {
	b.learn(gate.Report{Shim: id, Container: "of-" + string(id), Phase: gate.Waiting, Connected: true})
}

// The method "runs" makes the shim report that its child runs under its present grant.
func (b *bench) runs(id gate.ShimID) {
	its := b.shims[id]
	its.report.Phase, its.report.Hold = gate.Running, its.number
}

// The method "misses" notes that the shim's last order may or may not have arrived.
func (b *bench) misses(id gate.ShimID) {
	b.missed(order{shim: id, number: b.shims[id].number}, false, b.now)
}

func (b *bench) start(id gate.ShimID) order {
	b.waits(id)
	o := b.act()[id]
	require.NotEmpty(b.t, o.number)
	b.runs(id)
	return o
}

func TestProgramStartsWithoutAHold(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	o := b.start("a")
	assert.Equal(t, b.now+b.budget.Deadline(), o.deadline)
	assert.Empty(t, b.act(), "the grant is fresh")
}

func TestNoGrantOutlastsTheHoldOfAProgram(t *testing.T) {
	t.Parallel()
	b := newBench(t, 2)
	b.start("a")
	sent := b.now
	b.now += 10 * time.Millisecond
	deadline := sent + b.budget.Deadline()
	require.True(t, b.tie(1, Tie{Deadline: deadline}, false))
	for range 100 {
		b.now += time.Second
		for _, o := range b.act() {
			assert.LessOrEqual(t, o.deadline, deadline)
		}
	}
	assert.Equal(t, deadline, b.shims["a"].until)
}

// After the acquiring write is sent, and before its answer arrives, the leash prolongs a grant. So
// the grant ends later than the deadline of the hold.
func TestLeashReportsAGrantThatOutlastsTheHold(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.start("a")
	sent := b.now + 10*time.Second
	b.now = sent + time.Second
	require.NotEmpty(t, b.act(), "the leash prolongs the grant while the acquiring write is under way")
	require.False(t, b.tie(0, Tie{Deadline: sent + b.budget.Deadline()}, false))
	assert.Empty(t, b.act())
	assert.True(t, b.tie(0, Tie{Deadline: b.now + b.budget.Deadline()}, false), "a renewal covers the grant")
}

func TestEarliestDeadlineOfSeveralHoldsBoundsTheGrant(t *testing.T) {
	t.Parallel()
	for earlier := range 2 {
		b := newBench(t, 2)
		b.start("a")
		first := b.now + b.budget.Deadline()
		require.True(t, b.tie(earlier, Tie{Deadline: first}, false))
		for range 3 {
			b.now += 5 * time.Second
			require.True(t, b.tie(1-earlier, Tie{Deadline: b.now + b.budget.Deadline()}, false))
			assert.Empty(t, b.act(), "the renewal of one hold moves no deadline of the other")
		}
	}
}

func TestLostHoldKillsOnlyItsOwnPrograms(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.start("a")
	require.True(t, b.tie(0, Tie{Deadline: b.now + b.budget.Deadline()}, false))
	b.now += time.Second
	b.start("fresh")
	b.breaks(0)
	assert.Equal(t, map[gate.ShimID]order{"a": {shim: "a", kill: true}}, b.act())
	b.now += 20 * time.Second
	assert.Equal(t, []gate.ShimID{"fresh"}, keys(b.act()), "no grant of the killed program moves")
}

func TestShimThatJoinsAHoldIsTied(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.start("a")
	deadline := b.now + b.budget.Deadline()
	require.True(t, b.tie(0, Tie{Deadline: deadline}, false))
	b.now += time.Second
	b.start("fresh")
	require.True(t, b.tie(0, Tie{Deadline: deadline}, false))
	require.False(t, b.tie(0, Tie{Deadline: deadline}, true), "the grant of the fresh shim ends later")
	b.breaks(0)
	assert.Len(t, b.act(), 2)
}

func TestFailedOrderIsSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	o := b.start("a")
	b.misses("a")
	assert.Empty(t, b.act())
	b.now += b.budget.Retry
	assert.Equal(t, o.number, b.act()["a"].number)
	b.tie(0, Tie{Deadline: b.now + b.budget.Deadline()}, false)
	b.breaks(0)
	require.True(t, b.act()["a"].kill)
	b.misses("a")
	b.now += b.budget.Retry
	assert.True(t, b.act()["a"].kill)
}

// If the desk cannot write the note of a first grant, the desk does not send that grant. So the
// shim has started no child that the leash must kill after the loss of the hold.
func TestLostHoldKillsOnlyShimsWithSentGrant(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.waits("a")
	o := b.act()["a"]
	require.True(t, o.first)
	require.True(t, b.tie(0, Tie{Deadline: b.now + b.budget.Deadline()}, true))
	b.missed(o, true, b.now)
	b.breaks(0)
	assert.Empty(t, b.act(), "no order follows before the next attempt")
	b.now += b.budget.Retry
	next := b.act()["a"]
	assert.False(t, next.kill)
	assert.True(t, next.first)
	assert.NotEqual(t, o.number, next.number)
}

func TestShimThatConnectsAgainGetsItsGrantAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	o := b.start("a")
	r := b.shims["a"].report
	r.Connected = false
	b.learn(r)
	b.now += 10 * time.Second
	assert.Empty(t, b.act())
	r.Connected = true
	b.learn(r)
	assert.Equal(t, o.number, b.act()["a"].number)
}

func keys(orders map[gate.ShimID]order) (ids []gate.ShimID) {
	for id := range orders {
		ids = append(ids, id)
	}
	return ids
}

func TestLeashForgetsADeadShim(t *testing.T) {
	t.Parallel()
	b := newBench(t, 1)
	b.start("a")
	b.learn(gate.Report{Shim: "a", Container: "of-a", Phase: gate.Running, Dead: true})
	assert.Empty(t, b.shims)
	assert.True(t, b.tie(0, Tie{Deadline: b.now + time.Second}, false))
}
