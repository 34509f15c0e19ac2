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
)

// The tests of this file have several programs in one pod.

const holdPath = "/v1/lock/a/holds"

// A program has lost its hold, and does not know the loss yet. Meanwhile another program of the pod has
// got the next hold.
func TestLostHoldsNumberNeverActsOnNextHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		earlier := p.hold("?heartbeat=10s")
		after(time.Minute)
		present := p.hold("?heartbeat=10s&wait=5m")
		require.NotEqual(t, earlier, present)
		code, _ := p.call(http.MethodDelete, holdPath+"/"+earlier)
		assert.Equal(t, http.StatusNoContent, code)
		code, _ = p.call(http.MethodGet, holdPath+"/"+earlier)
		assert.Equal(t, http.StatusGone, code)
		after(5 * time.Second)
		assert.Equal(t, "first", holder(s), "another program's hold continues")
		code, _ = p.call(http.MethodPut, holdPath+"/"+earlier)
		assert.Equal(t, http.StatusGone, code)
		after(budget.Deadline() + 6*time.Second)
		code, _ = p.call(http.MethodPut, holdPath+"/"+present)
		assert.Equal(t, http.StatusGone, code, "a call with the earlier number is no heartbeat")
	})
}

// The holder has sent no heartbeat yet.
func TestWithdrawnBidNeverEndsAnotherProgramsHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		code, body := p.call(http.MethodPost, holdPath+"?wait=10s")
		assert.Equal(t, http.StatusConflict, code, body)
		after(time.Second)
		assert.Equal(t, "first", holder(s))
		code, body = p.call(http.MethodPut, holdPath+"/"+number)
		assert.Equal(t, http.StatusOK, code, body)
	})
}

// The outcome of the bid and the end of the call come at the same instant, and the call takes notice of
// its end.
func TestHoldOfBidThatGivesUpIsReleased(t *testing.T) {
	for _, told := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
			k := calls{a.keepers[0]}
			b := &bid{now: true, every: defaultBeats}
			o := k.bidFor(t.Context(), b, 0)
			require.Nil(t, o.problem)
			if told {
				code, _ := p.call(http.MethodPut, holdPath+"/"+o.hold.number)
				require.Equal(t, http.StatusOK, code)
			}
			k.giveUp(b)
			after(time.Second)
			assert.Equal(t, told, holder(s) == "first", "another call has told a program of the hold")
		})
	}
}

func TestClaimKeepsOnlySoManyBids(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		p.hold("?heartbeat=5m")
		for range mostBids {
			p.stream(http.MethodPost, holdPath+"?wait=1h")
		}
		synctest.Wait()
		began := time.Now()
		code, body := p.call(http.MethodPost, holdPath+"?wait=1h")
		assert.Equal(t, http.StatusTooManyRequests, code, body)
		assert.Zero(t, time.Since(began))
	})
}

// The agent cannot end, because a program's stream supports a hold.
func TestBidIsRefusedWhileAnotherProgramDelaysStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		held := p.stream(http.MethodPost, holdPath+"?stream=true")
		after(time.Second)
		waits := p.stream(http.MethodPost, holdPath+"?wait=1h")
		after(time.Second)
		close(p.stop)
		<-waits.done
		assert.Equal(t, http.StatusServiceUnavailable, waits.code)
		began := time.Now()
		code, body := p.call(http.MethodPost, holdPath+"?wait=1h")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "Stopping", body["reason"])
		assert.Zero(t, time.Since(began))
		after(time.Minute)
		assert.Equal(t, []string{"held"}, held.states())
	})
}

func TestWithdrawnBidLeavesOtherBidsInPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		waits := []*lines{p.stream(http.MethodPost, holdPath+"?wait=1h&stream=true"), p.stream(http.MethodPost, holdPath+"?wait=1h&stream=true")}
		after(time.Second)
		waits[0].end()
		<-waits[0].done
		p.call(http.MethodDelete, holdPath+"/"+number)
		after(time.Second)
		assert.Equal(t, []string{"held"}, waits[1].states())
	})
}
