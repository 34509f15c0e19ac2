// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// bench is a state with its clock.
type bench struct {
	leashes
	t   testing.TB
	now time.Duration
}

func newBench(t testing.TB, claims int) *bench {
	t.Helper()
	budget, err := api.NewBudget(30 * time.Second)
	require.NoError(t, err)
	names := 0
	b := &bench{t: t, now: time.Hour, leashes: newLeashes(budget, func() string { names++; return fmt.Sprintf("leash-%d", names) })}
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

// If the server cannot write the note of a first grant, the server does not send that grant. So the
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

// claimOf is a claim of the fuzz test: the hold, and its unanswered write.
type claimOf struct {
	Tie
	// sent is the instant at which the unanswered acquisition or renewal was sent; zero for none.
	sent time.Duration
	// good reports that a program has got the answer that the hold is good. The field "knows" has
	// the shims that lived at that answer.
	good  bool
	knows map[gate.ShimID]string
}

// FuzzGrantNeverOutlastsAKnownHold plays random schedules of shims, claims and leaps. The bytes
// choose the steps.
func FuzzGrantNeverOutlastsAKnownHold(f *testing.F) {
	f.Add([]byte{0, 10, 20, 30, 41, 52, 63, 74, 85, 96, 107, 118, 129, 140, 151, 162})
	f.Add([]byte{0, 1, 2, 40, 48, 200, 41, 49, 201, 202, 203, 60, 204, 205, 206})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := newBench(t, 2)
		claims := [2]claimOf{{Tie: Tie{Deadline: pace.Never}}, {Tie: Tie{Deadline: pace.Never}}}
		sent := map[gate.ShimID]order{}
		firsts := map[gate.ShimID]order{} // by shim: the last order, if that is a first grant
		for _, step := range steps {
			id := gate.ShimID('a' + step%3)
			c := &claims[step%2]
			of := int(step % 2)
			switch what := step / 10; {
			case what < 2:
				b.waits(id)
			case what < 4 && b.shims[id] != nil && b.shims[id].number != "":
				b.runs(id)
				delete(firsts, id)
			case what < 6:
				c.sent = b.now
			case what < 9 && c.sent != 0 && c.sent+b.budget.Deadline() > b.now && b.now < c.Deadline:
				c.Deadline, c.Unrenewed, c.sent = c.sent+b.budget.Deadline(), false, 0
				// Until the first good answer, each stored write ties all shims to the hold.
				join := step%5 == 0 || !c.good
				if b.tie(of, c.Tie, join) && join {
					c.remember(b)
				}
			case what < 10 && c.Deadline != pace.Never:
				b.breaks(of)
				c.Deadline, c.good, c.knows = pace.Never, false, nil
			case what < 11:
				c.Deadline, c.good, c.knows = pace.Never, false, nil
				b.tie(of, c.Tie, false)
			case what < 12 && firsts[id].number != "" && step%2 == 0:
				b.missed(firsts[id], true, b.now)
				delete(firsts, id)
				delete(sent, id)
			case what < 12 && b.shims[id] != nil:
				b.misses(id)
			case what < 13 && b.shims[id] != nil:
				b.learn(gate.Report{Shim: id, Container: "of-" + string(id), Phase: gate.Waiting, Hold: b.shims[id].number, Connected: true})
				delete(sent, id)
			default:
				b.now += time.Duration(step) * 20 * time.Millisecond
			}
			for its, o := range b.act() {
				if last, ok := sent[its]; ok && !o.kill && last.number == o.number && o.deadline < last.deadline {
					t.Fatalf("the deadline of %s moved back by %v", its, last.deadline-o.deadline)
				}
				delete(firsts, its)
				if o.first {
					firsts[its] = o
				}
				if !o.kill {
					sent[its] = o
				}
			}
			for i, c := range claims {
				for its, number := range c.knows {
					if o, ok := sent[its]; c.good && ok && o.number == number && o.deadline > c.Deadline {
						t.Fatalf("the grant of %s ends %v after the hold of claim %d", its, o.deadline-c.Deadline, i)
					}
				}
			}
		}
	})
}

// remember notes the shims whose programs may know the hold.
func (c *claimOf) remember(b *bench) {
	c.good, c.knows = true, map[gate.ShimID]string{}
	for id, its := range b.shims {
		if its.number != "" {
			c.knows[id] = its.number
		}
	}
}

// shim is a Gate with one shim. The shim runs a program while the shim's grant permits that.
type shim struct {
	reports chan gate.Report
	clock   func() time.Duration
	mu      sync.Mutex
	grant   gate.Grant
	// The field "killed" reports that the agent has ordered the shim to kill its program.
	killed bool
}

func (s *shim) Reports() <-chan gate.Report { return s.reports }

func (s *shim) Grant(_ gate.ShimID, g gate.Grant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grant = g
	return nil
}

func (s *shim) Drain(gate.ShimID, string, time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
	return nil
}

// last returns the last grant.
func (s *shim) last() gate.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant
}

// The method "runs" reports whether the program is alive.
func (s *shim) runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant.Hold != "" && !s.killed && s.clock() < s.grant.KillAt()
}

// startLeashed starts a pod with the claims. The program of the pod runs through a shim.
func startLeashed(t *testing.T, s *server, name, claims string) (*pod, *shim) {
	t.Helper()
	return startLeashedWith(t, s, name, claims, func(*Config) {})
}

func startLeashedWith(t *testing.T, s *server, name, claims string, set func(*Config)) (*pod, *shim) {
	t.Helper()
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	g := &shim{reports: make(chan gate.Report), clock: func() time.Duration { return time.Since(began) }}
	l := NewLeash(LeashConfig{Gate: g, Budget: budget, BootID: "boot", Clock: g.clock, Random: rand.NewPCG(1, 2)})
	p, _ := beginWith(t, s, name, claims, func(c *Config) {
		c.LeaseDuration, c.Leash = budget.Duration, l
		set(c)
	})
	go l.Run(t.Context())
	g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Waiting, Connected: true}
	synctest.Wait()
	require.True(t, g.runs())
	g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: g.last().Hold, Connected: true}
	return p, g
}

// restart replaces the shim, as a restart of the container does. The new program runs.
func (s *shim) restart() {
	s.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: s.last().Hold, Dead: true}
	s.reports <- gate.Report{Shim: "again", Container: "app", Phase: gate.Waiting, Connected: true, Began: s.clock()}
	synctest.Wait()
	s.reports <- gate.Report{Shim: "again", Container: "app", Phase: gate.Running, Hold: s.last().Hold, Connected: true, Began: s.clock()}
}

func TestRestartedMetaparticleSyncClientKeepsItsLock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		put := func() {
			code, _ := p.call(http.MethodPut, "/locks/a")
			require.Equal(t, http.StatusOK, code)
		}
		put()
		<-time.After(9 * time.Second)
		g.restart()
		for range 20 {
			put()
			<-time.After(10 * time.Second)
			require.True(t, g.runs())
		}
	})
}

func TestRepeatedMetaparticleSyncCallLeavesNoPendingBid(t *testing.T) {
	for offset := range 8 {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, g := startLeashed(t, s, "first", "lock/a")
			<-time.After(time.Duration(offset) * 900 * time.Millisecond)
			s.slow(2 * time.Second)
			first := make(chan int)
			go func() {
				code, _ := p.call(http.MethodPut, "/locks/a")
				first <- code
			}()
			<-time.After(3 * time.Second)
			_, _ = p.call(http.MethodPut, "/locks/a")
			assert.Equal(t, http.StatusOK, <-first)
			s.slow(0)
			<-time.After(2 * time.Minute) // without heartbeats the hold is lost, and its program is killed
			require.False(t, g.runs())
			renewed := s.Lease("lock.a").ResourceVersion
			<-time.After(5 * time.Minute)
			assert.Equal(t, renewed, s.Lease("lock.a").ResourceVersion, "no bid is left that gets a hold")
		})
	}
}

func TestBidWithShortHeartbeatsSucceedsDespiteSlowServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		for range 30 {
			<-time.After(317 * time.Millisecond)
			s.slow(2300 * time.Millisecond)
			began := time.Now()
			code, body := p.call(http.MethodPost, "/v1/lock/a/holds?wait=1m&heartbeat=2s")
			require.Equal(t, http.StatusCreated, code, body)
			assert.Less(t, time.Since(began), 10*time.Second)
			s.slow(0)
			code, _ = p.call(http.MethodDelete, "/v1/lock/a/holds/"+body["hold"].(string))
			require.Equal(t, http.StatusNoContent, code)
			require.True(t, g.runs())
		}
	})
}

// A frozen program cannot send heartbeats, and thaws only after a renewal. The outage takes most of the time
// between two heartbeats. After the thaw the program has that whole time.
func TestThawedProgramGetsWholeTimeForHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=20s")
		s.SetAway(true)
		g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: g.last().Hold, Connected: true, Leap: 1}
		<-time.After(19 * time.Second)
		assert.Zero(t, g.last().Leap, "the hold is in doubt")
		s.SetAway(false)
		<-time.After(2 * time.Second)
		require.Equal(t, 1, g.last().Leap, "the program goes on")
		<-time.After(17 * time.Second)
		code, body := p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusOK, code, body)
		assert.Equal(t, "held", body["state"])
		assert.True(t, g.runs())
	})
}

func TestProgramWithoutHoldSurvivesAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		_, g := startLeashed(t, s, "first", "lock/a")
		s.SetAway(true)
		<-time.After(10 * time.Minute)
		assert.True(t, g.runs())
		assert.Zero(t, s.count())
	})
}

func TestHeartbeatAnswerPredictsWhenShimKillsProgram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		<-time.After(7 * time.Second)
		s.SetAway(true)
		code, body := p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		require.Equal(t, http.StatusOK, code)
		good, _ := body["goodForSeconds"].(float64)
		<-time.After(time.Duration((good - .01) * float64(time.Second)))
		assert.True(t, g.runs())
		<-time.After(20 * time.Millisecond)
		assert.False(t, g.runs())
	})
}

func TestGrantOfProgramsShimNeverOutlastsNewHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		for range 50 {
			<-time.After(317 * time.Millisecond)
			s.slow(2 * time.Second)
			code, body := p.call(http.MethodPost, "/v1/lock/a/holds?wait=1m&heartbeat=30s")
			require.Equal(t, http.StatusCreated, code, body)
			s.slow(0)
			assert.Equal(t, "held", body["state"])
			until, _ := body["goodUntil"].(float64)
			assert.LessOrEqual(t, new(g.last()).KillAt().Seconds(), until+.001)
			code, _ = p.call(http.MethodDelete, "/v1/lock/a/holds/"+body["hold"].(string))
			require.Equal(t, http.StatusNoContent, code)
		}
	})
}

// Without a shim, the answer would be uncertain at once. But a shim keeps the program frozen until the
// renewal, so the answer waits for the renewal, too.
func TestLeapDuringBidDelaysAnswerUntilRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, _ := startLeashed(t, s, "first", "lock/a")
		p.call(http.MethodGet, "/v1/lock/a")
		bid := p.stream(http.MethodPost, "/v1/lock/a/holds")
		synctest.Wait()
		p.leap()
		<-bid.done
		assert.Equal(t, []string{"held"}, bid.states())
	})
}

func TestRenewalsOfAHoldKeepItsProgramAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		stream := p.stream(http.MethodPost, "/v1/lock/a/holds?stream=true")
		<-time.After(10 * time.Minute)
		assert.Equal(t, []string{"held"}, stream.states())
		assert.True(t, g.runs())
	})
}

func TestStolenLeaseKillsProgramAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		p.hold("?heartbeat=5m")
		after(time.Second)
		s.Edit("lock.a", func(l *kube.Lease) { l.Holder = "thief_u" })
		after(time.Millisecond)
		assert.False(t, g.runs())
	})
}
