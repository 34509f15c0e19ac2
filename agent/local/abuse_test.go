// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// stall blocks the loop, as a CPU limit may do, until the caller calls resume.
func stall(k *keeper) (resume func()) {
	c, in := make(chan struct{}), make(chan struct{})
	go k.post(context.Background(), func(time.Duration) {
		close(in)
		<-c
	})
	<-in
	return func() { close(c) }
}

func TestWithdrawnBidNeverReleasesHoldOfRepeatedBid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, a := startFor(t, s, "first", api.DefaultLeaseDuration)
		second := start(t, s, "second", "lock/a")
		p.call(http.MethodGet, "/v1/lock/a") // this call makes the agent read and watch the Lease
		waits := second.stream(http.MethodPost, "/v1/lock/a/holds?stream=true&wait=1h")
		s.Edit("lock.a", func(l *kube.Lease) { l.Holder, l.DurationSeconds = "other", 30 })
		<-time.After(time.Millisecond)
		waits.end()
		<-waits.done
		s.Edit("lock.a", func(l *kube.Lease) { l.Holder, l.DurationSeconds = "", 1 })
		<-time.After(time.Second)
		one := p.stream(http.MethodPut, "/locks/a") // the write that acquires the lock takes 1 ms
		synctest.Wait()
		resume := stall(a.keepers[0])
		<-time.After(2 * time.Millisecond) // the answer to the acquiring write waits for the loop
		synctest.Wait()
		var code int
		two := make(chan struct{})
		go func() { code, _ = p.call(http.MethodPut, "/locks/a"); close(two) }() // the program repeats its call
		synctest.Wait()
		one.end() // the program gives up its first call
		synctest.Wait()
		resume()
		<-two
		assert.Equal(t, 200, code)
		<-time.After(time.Second)
		synctest.Wait()
		assert.Equal(t, "first", holder(s), "PUT /locks/a answered 200 a second ago, good for 12 s or more")
		third := start(t, s, "third", "lock/a")
		code3, _ := third.call(http.MethodPost, "/v1/lock/a/holds")
		assert.Equal(t, 409, code3, "two programs with a good answer")
	})
}

func TestAbortedStreamsDoNotKeepTheHoldAlive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=10s")
		for range 200 { // streams that the program aborts immediately
			ctx, end := context.WithCancel(t.Context())
			end()
			p.handler.ServeHTTP(httptest.NewRecorder(), request(ctx, http.MethodGet, "/v1/lock/a/holds/"+number))
		}
		<-time.After(24 * time.Hour) // in this time the program sends nothing, as if it were dead
		assert.Empty(t, func() string {
			if time.Since(s.Lease("lock.a").RenewTime) > time.Minute {
				return ""
			}
			return holder(s)
		}(), "nobody shows that the program lives, and the agent still renews")
	})
}

func TestLeapDuringABidMakesItsHoldUncertain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		p.call(http.MethodGet, "/v1/lock/a")
		l := p.stream(http.MethodPost, "/v1/lock/a/holds")
		synctest.Wait()
		p.leap()
		<-l.done
		var body holding
		require.NoError(t, json.Unmarshal(l.text.Bytes(), &body))
		assert.Equal(t, uncertain, body.State, l.text.String())
	})
}

func TestAgentReleasesSlotAfterRefusingMetaparticleSyncClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, _ := startFor(t, s, "first", api.MinLeaseDuration)
		code, _ := p.call(http.MethodPut, "/locks/a")
		assert.Equal(t, 409, code)
		<-time.After(5 * time.Second)
		assert.Empty(t, holder(s), "the program was told 409, and nobody works")
	})
}

func TestNextBidAfterProgramCrashGetsUnpausedSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "semaphore.p.0", "semaphore.p.1")
		p := start(t, s, "first", "semaphore/p=2")
		stream := p.stream(http.MethodPost, "/v1/semaphore/p/holds?stream=true")
		<-time.After(time.Second)
		name := "semaphore.p.0"
		if s.Lease(name).Holder == "" {
			name = "semaphore.p.1"
		}
		s.Edit(name, func(l *kube.Lease) { l.Annotations[api.PausedAnnotation] = "" })
		stream.end() // the program crashed
		<-time.After(10 * time.Minute)
		code, body := p.call(http.MethodPost, "/v1/semaphore/p/holds?wait=1h")
		assert.Equal(t, 201, code, body)
	})
}

func TestLocalAPIWatchShowsFreeSlotAfterExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		watch := second.stream(http.MethodGet, "/v1/lock/a?watch=true")
		<-time.After(time.Second)
		first.hold("?heartbeat=5m")
		<-time.After(16 * time.Second)
		first.kill()
		synctest.Wait()
		free := s.Lease("lock.a").RenewTime.Add(30 * time.Second)
		for !strings.HasSuffix(strings.TrimSpace(func() string { watch.mu.Lock(); defer watch.mu.Unlock(); return watch.text.String() }()), `{"slot":"lock.a","state":"free"}]}`) {
			<-time.After(100 * time.Millisecond)
			synctest.Wait()
		}
		assert.LessOrEqual(t, time.Since(free), 2*time.Second)
	})
}

func TestHoldDeletedAfterDeadlineIsReleasedAtOnce(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p, _ := startFor(t, s, "first", d)
				number := p.hold("?heartbeat=5m")
				b, _ := api.NewBudget(d)
				s.SetAway(true)
				<-time.After(b.Deadline() + 10*time.Millisecond)
				p.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
				s.SetAway(false)
				began := time.Now()
				p.hold("?wait=24h")
				assert.LessOrEqual(t, time.Since(began), 15*time.Second)
			})
		})
	}
}

func TestYieldAnnotationEndsHoldOfACrashedProgram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m") // then the program crashes, and loses the number of its hold
		<-time.After(time.Minute)
		s.Edit("lock.a", func(l *kube.Lease) {
			l.Annotations[api.YieldAnnotation] = number
			l.Annotations[api.PausedAnnotation] = "stop"
		})
		<-time.After(time.Hour)
		assert.Greater(t, time.Since(s.Lease("lock.a").RenewTime), time.Minute, "still renewed")
	})
}

func TestAgentStoppedDuringCampaignReleasesTheSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		p.call(http.MethodGet, "/v1/lock/a")
		l := p.stream(http.MethodPost, "/v1/lock/a/holds?stream=true&wait=1m")
		m := p.stream(http.MethodPost, "/v1/lock/a/holds?stream=true&wait=1m")
		synctest.Wait()
		close(p.stop)
		require.NoError(t, <-p.ended)
		<-l.done
		<-m.done
		assert.Empty(t, holder(s))
	})
}

func TestSemaphoreHolderNeverWatchesOtherSlots(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "semaphore.p.0", "semaphore.p.1")
		first, second := start(t, s, "first", "semaphore/p=2"), start(t, s, "second", "semaphore/p=2")
		first.stream(http.MethodPost, "/v1/semaphore/p/holds?stream=true")
		second.stream(http.MethodPost, "/v1/semaphore/p/holds?stream=true")
		<-time.After(time.Minute)
		_, body := first.call(http.MethodGet, "/v1/semaphore/p")
		var states []any
		for _, slot := range body["slots"].([]any) {
			states = append(states, slot.(map[string]any)["state"])
		}
		assert.ElementsMatch(t, []any{"held", "unseen"}, states)
	})
}

// The function "listening" serves the local API of a pod over TCP, in real time. The third result
// is the address of the server.
func listening(t *testing.T, s *server) (*pod, *API, string) {
	t.Helper()
	p, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
	web := httptest.NewServer(a.Handler())
	t.Cleanup(web.CloseClientConnections)
	return p, a, strings.TrimPrefix(web.URL, "http://")
}

// send opens a connection, and sends the text.
func send(t *testing.T, address, text string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	return c
}

func TestRequestWithoutItsAnnouncedBodyIsRefused(t *testing.T) {
	s := newServer(t, "lock.a")
	p, _, address := listening(t, s)
	number := p.hold("?heartbeat=5m")
	c := send(t, address, "PUT /v1/lock/a/holds/"+number+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "400")
}

func TestConcurrentBidsWithoutWaitAreAnsweredSoon(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, time.Hour} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, _ := startFor(t, s, "first", d)
			began := time.Now()
			one := p.stream(http.MethodPost, "/v1/lock/a/holds?heartbeat=5m")
			two := p.stream(http.MethodPost, "/v1/lock/a/holds?heartbeat=5m")
			<-one.done
			<-two.done
			assert.LessOrEqual(t, time.Since(began), 3*time.Second, d)
		})
	}
}
