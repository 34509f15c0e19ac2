// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"context"
	"log/slog"
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
		"in time":             {parting / 4, []string{"first"}},
		"no longer than that": {10 * parting, nil},
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
				assert.LessOrEqual(t, time.Since(stopped), parting)
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
		e.Probed(probe.Notice{Reason: "Unhealthy", Message: "refused:\n\x1b[31mé\n"})
		e.add(kube.Normal, "Acquired", "lock.a\n")
		assert.Equal(t, "refused:\n [31mé\n", <-api.messages)
		assert.Equal(t, "lock.a ", <-api.messages)
	})
}
