// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// The tests of this file are about the news that a program gets of its hold.

func TestHungServerNeverDelaysNewsOfALoss(t *testing.T) {
	for offset := range 5 {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, _ := beginWith(t, s, "first", "lock/a", func(*Config) {})
			stream := p.stream(http.MethodPost, holdPath+"?stream=true")
			after(time.Minute + time.Duration(offset)*time.Second)
			renewed := s.Lease("lock.a").RenewTime
			s.hangs.Store(true)
			after(budget.Deadline() + 10*time.Millisecond - time.Since(renewed))
			synctest.Wait()
			assert.Equal(t, []string{"held", "ending", "lost"}, stream.states())
		})
	}
}

// While the loop of the claim stands still, the deadline passes.
func TestHeartbeatAfterTheDeadlineGetsLost(t *testing.T) {
	for range 10 { // the loop may first take the heartbeat, or first look at the clock
		bubble(t, func(t *testing.T) {
			p, block := blockable(t, newServer(t, "lock.a"))
			number := p.hold("?heartbeat=5m")
			after(time.Second)
			unblock := block()
			code := make(chan int, 1)
			go func() {
				got, _ := p.call(http.MethodPut, holdPath+"/"+number)
				code <- got
			}()
			after(budget.Deadline() + time.Second)
			unblock()
			assert.Equal(t, http.StatusGone, <-code)
			after(time.Second) // the last request ends
		})
	}
}

func TestAskedProgramSendsHeartbeatsMoreOften(t *testing.T) {
	for name, ask := range map[string]func(l *kube.Lease){
		"yield": func(l *kube.Lease) { l.Annotations[api.YieldAnnotation] = l.Annotations[api.HoldAnnotation] },
		"pause": func(l *kube.Lease) { l.Annotations[api.PausedAnnotation] = string(api.PauseStop) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p := start(t, s, "first", "lock/a")
				number := p.hold("?heartbeat=5m")
				after(time.Minute)
				beats := func() (code int, state any) {
					code, body := p.call(http.MethodPut, holdPath+"/"+number)
					return code, body["state"]
				}
				beats()
				s.Edit("lock.a", ask)
				for range 4 {
					after(defaultBeats - time.Second)
					code, state := beats()
					require.Equal(t, http.StatusOK, code)
					assert.Equal(t, "asked", state)
				}
				after(defaultBeats + budget.Deadline())
				code, _ := beats()
				assert.Equal(t, http.StatusGone, code)
			})
		})
	}
}

// The first hold ends after the call has got the last one.
func TestCallWithALostHoldGetsNoSuccess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a", "lock.b")
		_, a := beginWith(t, s, "one", "lock/a,lock/b", func(*Config) {})
		call, problem := a.several(request(t.Context(), http.MethodPost, both).URL.Query())
		require.Nil(t, problem)
		require.Nil(t, call.acquire(t.Context()))
		s.Edit("lock.a", func(l *kube.Lease) { l.Holder, l.Annotations = "thief", nil })
		after(time.Second)
		_, problem = call.tell()
		assert.Equal(t, lostProblem, problem)
		call.giveBack()
		after(time.Second)
		assert.Zero(t, s.heldOf("one"))
	})
}

func TestTokenOfSeveralSlotsIsTheGreatest(t *testing.T) {
	tokens := []api.Token{{Slot: "a", Token: "9"}, {Slot: "b", Token: "102"}, {Slot: "c", Token: "101"}, {Slot: "d", Token: "20"}}
	slot, token := latest(tokens)
	assert.Equal(t, "b 102", slot+" "+token)
}

// lateReader reads each line only when the test permits that.
type lateReader struct {
	*lines
	turn chan struct{}
}

func (l lateReader) Write(b []byte) (int, error) {
	<-l.turn
	return l.lines.Write(b)
}

// The agent writes the first line until after the renewal, and the renewal takes longer than the
// acquisition. So the time in the second line is shorter than that in the first line, but ends later.
func TestLateReaderLearnsOfRenewalAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		reader := lateReader{&lines{}, make(chan struct{})}
		go p.handler.ServeHTTP(reader, request(t.Context(), http.MethodPost, holdPath+"?stream=true"))
		after(time.Second)
		s.slow(time.Second)
		after(budget.Renew + time.Second)
		close(reader.turn)
		synctest.Wait()
		assert.Equal(t, 2, strings.Count(reader.text.String(), "\n"), reader.text.String())
	})
}

// The test blocks the loop until a heartbeat comes. A heartbeat alone sends no line to a stream.
func TestHeartbeatNeverDelaysNewsOfTheEnd(t *testing.T) {
	for at, states := range map[time.Duration][]string{
		budget.RenewDeadline: {"held", "ending"}, budget.Deadline(): {"held", "ending", "lost"},
	} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
			stream := p.stream(http.MethodPost, holdPath+"?stream=true")
			after(time.Minute)
			renewed := s.Lease("lock.a").RenewTime
			s.hangs.Store(true)
			after(at - time.Millisecond - time.Since(renewed))
			k, resume := a.keepers[0], make(chan struct{})
			go k.post(t.Context(), func(time.Duration) {
				k.quiet = true
				<-resume
			})
			after(2 * time.Millisecond)
			go p.call(http.MethodPut, holdPath+"/"+numberIn(stream))
			synctest.Wait()
			close(resume)
			after(time.Millisecond)
			assert.Equal(t, states, stream.states())
		})
	}
}

func TestUncertainHoldIsNeverCalledEnding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		stream := p.stream(http.MethodPost, holdPath+"?stream=true")
		after(time.Second)
		s.SetAway(true)
		p.leap()
		after(time.Minute)
		assert.Equal(t, []string{"held", "uncertain", "lost"}, stream.states())
	})
}

// A program with the state asked may go on for a while. With the state ending it must stop.
func TestOutageEndsAnAskedHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		stream := p.stream(http.MethodPost, holdPath+"?stream=true")
		after(time.Second)
		s.Edit("lock.a", func(l *kube.Lease) { l.Annotations[api.YieldAnnotation] = numberIn(stream) })
		after(time.Second)
		s.SetAway(true)
		after(time.Minute)
		assert.Equal(t, []string{"held", "asked", "ending", "lost"}, stream.states())
	})
}
