// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// noPorts is a forwarder that opens no socket.
type noPorts struct{}

func (noPorts) Open() error                          { return nil }
func (noPorts) SetTarget(string)                     {}
func (noPorts) Linger(time.Duration) <-chan struct{} { return nil }
func (noPorts) Close()                               {}

// scene is a standby that forwards to a holder, in simulated time.
type scene struct {
	t      *testing.T
	r      *Readiness
	budget api.Budget
	now    time.Duration
	slot   elector.View
	turn   Turn
	// ready is the readiness that the standby last decided on. The field "changes" counts the
	// changes of that readiness.
	ready   bool
	changes int
}

var errNoPath = errors.New("reach port 80: i/o timeout")

func newScene(t *testing.T) *scene {
	b, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	s := &scene{t: t, budget: b, now: time.Hour}
	s.r = NewReadiness(ReadinessConfig{
		Need: api.Need{Slots: []string{"slot"}}, Workload: "Deployment/biller", Mode: api.ReadinessForward, Budget: b,
		Ports: api.Ports{{Number: 80}}, Forwarder: noPorts{},
	})
	s.held("a", "10.0.0.1")
	return s
}

// The method "held" makes the pod the holder. The application of that pod serves at the address.
func (s *scene) held(pod, address string) {
	s.slot = elector.View{Slot: "slot", Known: true, Record: &lease.Record{Holder: pod + "_u", Hold: "hold of " + pod, Profile: lease.Profile{
		Workload: "Deployment/biller", Address: address, Serving: time.Now(),
	}}}
	s.renewed()
}

// The method "renewed" makes the standby see a renewal.
func (s *scene) renewed() { s.slot.ExpiresAt = s.now + s.budget.Duration }

// look returns the standby's decision, and counts a change of the standby's readiness.
func (s *scene) look() Decision {
	l := s.r.Standby(s.now, []elector.View{s.slot}, s.turn, true)
	if !l.Keep && l.Ready != s.ready {
		s.ready = l.Ready
		s.changes++
	}
	return l
}

// The method "asks" lets the standby decide once. The decision must request a check of the
// holder's pod. The result of that check is err.
func (s *scene) asks(err error) {
	s.t.Helper()
	address := s.look().Check
	require.Equal(s.t, s.slot.Record.Profile.Address, address, "the pod is asked")
	s.r.Reached(s.now, address, err)
}

// The function "reached" returns a scene in which the holder has answered a check.
func reached(t *testing.T) *scene {
	s := newScene(t)
	assert.True(t, s.look().Keep, "nothing is known yet")
	s.r.Reached(s.now, "10.0.0.1", nil)
	require.True(t, s.look().Ready)
	return s
}

// cutOff returns a scene in which the holder renews, but no longer answers checks.
func cutOff(t *testing.T) *scene {
	s := reached(t)
	s.now += time.Minute
	s.renewed()
	s.r.Unanswered("10.0.0.1")
	s.asks(errNoPath)
	assert.True(t, s.look().Ready, "the holder may be dead, and connections wait for the next one")
	s.now += s.budget.Renew
	s.renewed()
	l := s.look()
	require.False(t, l.Ready)
	require.Equal(t, ReadyUnreachable, l.Reason)
	require.Equal(t, "a holds slot, and does not answer: reach port 80: i/o timeout", l.Message)
	require.Equal(t, "10.0.0.1", l.Check)
	s.r.Reached(s.now, "10.0.0.1", errNoPath)
	return s
}

func TestStandbyChecksTheHolderAfterAnUnansweredConnection(t *testing.T) {
	s := reached(t)
	for range 600 {
		s.now += s.budget.Renew
		s.renewed()
		require.Empty(t, s.look().Check, "no polling while all is well")
	}
	s.r.Unanswered("10.0.0.9")
	require.Empty(t, s.look().Check, "a former holder")
	s.r.Unanswered("10.0.0.1")
	s.asks(nil)
	s.r.Unanswered("10.0.0.1")
	l := s.look()
	assert.Empty(t, l.Check, "not at once again")
	assert.Equal(t, s.now+shortestPause, l.Wake)
	assert.True(t, l.Ready)
	s.now += shortestPause
	s.asks(nil)
	assert.Equal(t, 1, s.changes)
}

func TestStandbyChecksUnreachableHolderAtGrowingIntervals(t *testing.T) {
	s := cutOff(t)
	var pauses []time.Duration
	for range 6 {
		before := s.now
		l := s.look()
		require.False(t, l.Ready)
		s.now = l.Wake
		s.renewed()
		s.asks(errNoPath)
		pauses = append(pauses, s.now-before)
	}
	assert.Equal(t, []time.Duration{4 * time.Second, 8 * time.Second, longestPause, longestPause, longestPause, longestPause}, pauses)
	s.now += longestPause
	s.renewed()
	s.asks(nil)
	assert.True(t, s.look().Ready)
}

func TestStandbyOfADeadHolderStaysReady(t *testing.T) {
	s := reached(t)
	s.r.Unanswered("10.0.0.1")
	s.now += shortestPause
	s.asks(errNoPath)
	for s.now < s.slot.ExpiresAt {
		require.True(t, s.look().Ready, "no renewal: connections wait for the next holder")
		if s.look().Check != "" {
			s.r.Reached(s.now, "10.0.0.1", errNoPath)
		}
		s.now += time.Second
	}
	assert.Equal(t, ReadyHandingOver, s.look().Reason)
	s.held("b", "10.0.0.2")
	s.asks(nil)
	assert.Equal(t, ReadyStandingBy, s.look().Reason)
	assert.Equal(t, 1, s.changes)
}

func TestStandbyOfUnreachableHolderStaysUnreadyThroughHandover(t *testing.T) {
	s := cutOff(t)
	s.slot.Record.Holder, s.slot.Record.Hold = "", ""
	l := s.look()
	assert.False(t, l.Ready)
	assert.Equal(t, ReadyUnreachable, l.Reason)
	assert.Equal(t, "waiting for a holder of slot that serves and answers this pod, as the last one did not", l.Message)
	s.held("b", "10.0.0.2")
	s.asks(errNoPath)
	assert.Equal(t, ReadyUnreachable, s.look().Reason)
	s.now += longestPause
	s.asks(nil)
	assert.True(t, s.look().Ready)
	s.slot.Record.Holder, s.slot.Record.Hold = "", ""
	assert.Equal(t, ReadyHandingOver, s.look().Reason)
	assert.Equal(t, 3, s.changes)
}

// The old pod must stay Ready, because the slot may go back to that pod. A strict controller would
// delete an old pod that is not Ready.
func TestOldStandbyStaysReadyDuringUnreachableHoldersTurn(t *testing.T) {
	s := reached(t)
	s.turn = Turn{Ready: true}
	s.held("b", "10.0.0.2")
	s.asks(errNoPath)
	s.now += s.budget.Renew
	s.renewed()
	assert.True(t, s.look().Ready)
	s.turn = Turn{}
	assert.Equal(t, ReadyUnreachable, s.look().Reason)
}

func TestFlappingNetworkPathRarelyChangesReadiness(t *testing.T) {
	const play, step = 10 * time.Minute, 100 * time.Millisecond
	s := reached(t)
	began, asked := s.now, ""
	for ; s.now < began+play; s.now += step {
		path := (s.now-began)/(3*time.Second)%2 == 0
		if asked != "" {
			var err error
			if !path {
				err = errNoPath
			}
			s.r.Reached(s.now, asked, err)
		}
		if !path {
			s.r.Unanswered("10.0.0.1")
		}
		if (s.now-began)%s.budget.Renew == 0 {
			s.renewed()
		}
		asked = s.look().Check
	}
	assert.Greater(t, s.changes, 10, "the play shows something")
	assert.LessOrEqual(t, s.changes, 10+2*int(play/longestPause))
}
