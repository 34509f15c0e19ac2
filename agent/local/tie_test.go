// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
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
	"github.com/metaparticle-io/metaparticle/agent/leash"
)

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
	l := leash.New(leash.Config{Gate: g, Budget: budget, BootID: "boot", Clock: g.clock, Random: rand.NewPCG(1, 2)})
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
		p.leaps <- struct{}{}
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
