// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// A program starts after the acquisition. By each of the calls below that program learns of the hold, so
// its shim must kill the program if the hold is lost.
func TestRestartedProgramDiesWithHoldItLearnedOf(t *testing.T) {
	for name, learns := range map[string]func(t *testing.T, p *pod, number string){
		"nothing": nil,
		"heartbeat": func(t *testing.T, p *pod, number string) {
			code, body := p.call(http.MethodPut, holdPath+"/"+number)
			assert.Equal(t, http.StatusOK, code)
			assert.Equal(t, "uncertain", body["state"], "the shim's grant ends after the deadline of the hold")
			after(time.Second)
			_, body = p.call(http.MethodPut, holdPath+"/"+number)
			assert.Equal(t, "held", body["state"])
		},
		"stream": func(t *testing.T, p *pod, number string) {
			follows := p.stream(http.MethodGet, holdPath+"/"+number)
			after(time.Second)
			states := follows.states()
			assert.Equal(t, "held", states[len(states)-1])
		},
		"fence": func(t *testing.T, p *pod, number string) {
			code, body := p.send(http.MethodPut, hits+"?fence="+number, "1")
			assert.Equal(t, "Uncertain", body["reason"], code)
			after(time.Second)
			code, body = p.send(http.MethodPut, hits+"?fence="+number, "1")
			assert.Equal(t, http.StatusOK, code, body)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p, g := startLeashed(t, s, "first", "lock/a,variable/hits")
				number := p.hold("?heartbeat=5m")
				after(9 * time.Second)
				g.restart()
				if learns != nil {
					learns(t, p, number)
				}
				require.True(t, g.runs())
				s.SetAway(true)
				after(budget.Deadline() + time.Second)
				assert.Equal(t, learns == nil, g.runs())
			})
		})
	}
}

// A program starts while a call for several claims waits. The call already has one of the holds.
func TestProgramStartedDuringCallDiesWithItsHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a", "lock.b")
		p, g := startLeashed(t, s, "first", "lock/a,lock/b")
		other := start(t, s, "other", "lock/b")
		code, body := other.call(http.MethodPost, "/v1/lock/b/holds?heartbeat=5m")
		require.Equal(t, http.StatusCreated, code)
		waits := p.stream(http.MethodPost, both+"&wait=1h&heartbeat=5m")
		after(9 * time.Second)
		g.restart()
		other.call(http.MethodDelete, "/v1/lock/b/holds/"+body["hold"].(string))
		<-waits.done
		require.Equal(t, http.StatusCreated, waits.code)
		after(time.Second)
		s.Edit("lock.a", func(l *kube.Lease) { l.Holder = "thief_u" })
		after(time.Second)
		assert.False(t, g.runs())
	})
}

// untold lets a bid acquire the slot, but the shim's grant ends after the deadline of the hold. So the
// agent does not tell the program of the hold yet.
func untold(t *testing.T, s *server) (p *pod, g *shim, bid *lines) {
	t.Helper()
	p, g = startLeashed(t, s, "first", "lock/a")
	after(5 * time.Second)
	s.slow(2 * time.Second)
	bid = p.stream(http.MethodPost, holdPath+"?wait=10m&heartbeat=5m")
	for holder(s) == "" {
		<-time.After(100 * time.Millisecond)
	}
	synctest.Wait()
	select {
	case <-bid.done:
		require.Fail(t, "the program knows the hold")
	default:
	}
	return p, g, bid
}

func TestBidSurvivesLossOfHoldItNeverGot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g, bid := untold(t, s)
		later := p.stream(http.MethodPost, holdPath+"?wait=1h")
		s.slow(0)
		s.SetAway(true)
		after(budget.Duration)
		s.SetAway(false)
		after(budget.Duration)
		select {
		case <-bid.done:
			assert.Equal(t, http.StatusCreated, bid.code)
		default:
			assert.Fail(t, "the bid still waits")
		}
		assert.Empty(t, numberIn(later), "the earlier bid comes first")
		assert.True(t, g.runs(), "the program never knew the lost hold")
		code, _ := p.call(http.MethodPut, holdPath+"/"+numberIn(bid))
		assert.Equal(t, http.StatusOK, code)
	})
}

func TestUntoldHoldIsReleased(t *testing.T) {
	for name, end := range map[string]func(p *pod, bid *lines){
		"its agent stops":      func(p *pod, _ *lines) { close(p.stop) },
		"its bid is withdrawn": func(_ *pod, bid *lines) { bid.end() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p, g, bid := untold(t, s)
				end(p, bid)
				<-bid.done
				assert.NotEqual(t, http.StatusCreated, bid.code)
				after(10 * time.Second)
				assert.Empty(t, holder(s), "no program has the hold")
				assert.True(t, g.runs())
			})
		})
	}
}

// The loop stands still just after the keeper has learned of a leap.
func TestProgramStaysFrozenWhileItsKeeperIsBlocked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		wall := make(chan (<-chan struct{}), 1)
		p, g := startLeashedWith(t, s, "first", "lock/a", func(c *Config) {
			c.Wall = func() time.Time {
				select {
				case blocked := <-wall:
					<-blocked
				default:
				}
				return time.Now()
			}
		})
		p.hold("?heartbeat=5m")
		after(7 * time.Second)
		unblock := make(chan struct{})
		wall <- unblock
		g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: g.last().Hold, Connected: true, Leap: 1}
		after(time.Second)
		assert.Zero(t, g.last().Leap, "no renewal has been stored since the leap")
		close(unblock)
		after(time.Second)
		assert.Equal(t, 1, g.last().Leap)
		assert.True(t, g.runs())
	})
}
