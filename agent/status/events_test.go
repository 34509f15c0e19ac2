// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
)

// The type "slowly" is an API server whose answers to Events are late.
type slowly struct {
	API
	takes time.Duration
	asked chan struct{}
	seen  []string
}

func (s *slowly) CreateEvent(ctx context.Context, e kube.Event) error {
	s.asked <- struct{}{}
	select {
	case <-time.After(s.takes):
		s.seen = append(s.seen, e.Reason)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The last Events about an application often come when the agent gets its stop signal.
func TestStoppingAgentWaitsBrieflyForEventInFlight(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		want  []string
	}{
		"in time":             {lastEvents / 4, []string{"first"}},
		"no longer than that": {10 * lastEvents, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &slowly{takes: tt.takes, asked: make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				e := NewEvents(Config{API: api, Timeout: time.Minute, Wall: time.Now, Log: slog.New(slog.DiscardHandler), Idle: func() {}})
				go e.Run(ctx)
				e.add(kube.Normal, "first", "")
				<-api.asked
				stopped := time.Now()
				e.Flush(ctx)
				cancel()
				synctest.Wait()
				assert.LessOrEqual(t, time.Since(stopped), lastEvents)
				assert.Equal(t, tt.want, api.seen)
			})
		})
	}
}

// recorded is an API server that passes each message of an Event to a channel.
type recorded struct {
	API
	messages chan string
}

func (r recorded) CreateEvent(_ context.Context, e kube.Event) error {
	r.messages <- e.Message
	return nil
}

// The kubelet's Events contain the output of a probe with the ends of its lines.
func TestProbeEventKeepsTheLinesOfItsOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := recorded{messages: make(chan string, 2)}
		e := NewEvents(Config{API: api, Timeout: time.Minute, Wall: time.Now, Log: slog.New(slog.DiscardHandler), Idle: func() {}})
		go e.Run(t.Context())
		e.Probed(0, probe.Notice{Reason: "Unhealthy", Message: "refused:\n\x1b[31mé\n"})
		assert.Equal(t, "refused:\n [31mé\n", <-api.messages)
		e.add(kube.Normal, "Acquired", "lock.a\n")
		assert.Equal(t, "lock.a ", <-api.messages)
	})
}

// The type "stuck" is an API server that answers no Event of the reason Unhealthy.
type stuck struct {
	API
	reasons chan string
}

func (s stuck) CreateEvent(ctx context.Context, e kube.Event) error {
	if e.Reason == "Unhealthy" {
		<-ctx.Done()
		return ctx.Err()
	}
	s.reasons <- e.Reason
	return nil
}

func TestOwnEventsNeverWaitForThoseOfPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := stuck{reasons: make(chan string, queued)}
		e := NewEvents(Config{API: api, Timeout: time.Minute, Wall: time.Now, Log: slog.New(slog.DiscardHandler), Idle: func() {}})
		ctx, cancel := context.WithCancel(t.Context())
		go e.Run(ctx)
		for range 1000 {
			e.Probed(0, probe.Notice{Reason: "Unhealthy", Message: "refused"})
		}
		<-time.After(time.Second)
		for range queued {
			e.Acquired(nil)
		}
		added := time.Now()
		for range queued {
			assert.Equal(t, "Acquired", <-api.reasons)
		}
		assert.LessOrEqual(t, time.Since(added), Calm)

		// The last Events of a stopping agent do not wait, either.
		e.Released("lock.a", "")
		e.Flush(ctx)
		cancel()
		assert.Equal(t, "Released", <-api.reasons)
	})
}

func TestProgramsCauseFewEventsAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := recorded{messages: make(chan string, 1000)}
		var lines bytes.Buffer
		e := NewEvents(Config{API: api, Timeout: time.Minute, Wall: time.Now, Log: slog.New(slog.NewTextHandler(&lines, nil)), Idle: func() {}})
		go e.Run(t.Context())
		began := time.Now()
		now := func() time.Duration { return time.Since(began) }
		sent := func() (n int) {
			<-time.After(2 * Calm)
			for range len(api.messages) {
				<-api.messages
				n++
			}
			return n
		}
		flood := func() {
			for range 100 {
				e.Silent(now(), "app")
				e.Probed(now(), probe.Notice{Container: "app", Reason: "Unhealthy"})
			}
		}
		flood()
		assert.Equal(t, causedBurst, sent())
		assert.Equal(t, 1, strings.Count(lines.String(), "\n"), lines.String())
		flood()
		assert.Zero(t, sent())
		<-time.After(causedPause)
		flood()
		assert.Equal(t, 1, sent())
		<-time.After(time.Hour)
		assert.Zero(t, sent(), "no Event may come later")
		flood()
		assert.Equal(t, causedBurst, sent())
		assert.Equal(t, 3, strings.Count(lines.String(), "\n"), "each time that the bound is reached, the log has one line")
		assert.Contains(t, lines.String(), "leftOut=")
	})
}
