// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/status"
)

// errGateClosed means that the gate ended before the agent did.
var errGateClosed = errors.New("agent: the gate is closed")

// posts carries functions from other goroutines to the loop. The loop calls each function with
// the instant at which the loop received it.
type posts chan func(now time.Duration)

// post hands f to the loop, or drops f when ctx ends.
func (p posts) post(ctx context.Context, f func(now time.Duration)) {
	select {
	case p <- f:
	case <-ctx.Done():
	}
}

// publish writes the pod's status, unless d.Keep reports that the status stays as it is. If the
// status depends on whether the holder's pod answers connections, publish also checks that pod. The
// result is the instant of the next decision.
func (s *state) publish(ctx context.Context, d status.Decision) (wake time.Duration) {
	if !d.Keep {
		s.status.Show(d.Appearance)
	}
	if d.Check != "" {
		s.group.Go(func() { s.checkHolder(ctx, d.Check) })
	}
	return d.Wake
}

func (s *state) checkHolder(ctx context.Context, address string) {
	bounded, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	err := s.config.Forwarder.Reachable(bounded, address)
	s.posts.post(ctx, func(now time.Duration) { s.readiness.Reached(now, address, err) })
}

// wait waits for one event, or until the instant wake, and stores what the event reports.
// Timers only wake the loop; only the clock tells the time.
func (s *state) wait(ctx context.Context, wake time.Duration) error {
	s.metrics.Looked()
	timer := time.NewTimer(pace.Sleep(s.config.Clock(), wake))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r, ok := <-s.config.Gate.Reports():
		if !ok {
			return errGateClosed
		}
		s.now = s.config.Clock()
		s.reported(s.now, r)
	case f := <-s.posts:
		s.now = s.config.Clock()
		f(s.now)
	case address := <-s.noAnswer:
		s.now = s.config.Clock()
		s.readiness.Unanswered(address)
	case <-s.probes.News():
		s.now = s.config.Clock()
		s.noticed(s.now)
	case <-s.stops:
		s.now, s.stops = s.config.Clock(), nil
		s.stop(s.now)
	case <-s.config.Leaps:
		s.now = s.config.Clock()
		s.leapt(s.now)
	case <-s.yields:
		s.now, s.yielding = s.config.Clock(), true
	case <-timer.C:
		s.now = s.config.Clock()
	}
	return nil
}

// Serve runs the agent's end of the gate and the agent's loop, and returns the error with which
// the agent's process ends. When the gate or the loop returns, Serve stops the other, and waits
// until both have returned. If the gate returns an error, Serve does not wait for the loop, which
// may be blocked. A wait would be unsafe: with the gate "pod", the kubelet stops the application
// only after the agent's process has ended.
func Serve(ctx context.Context, gate, loop func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gates, loops := make(chan error, 1), make(chan error, 1)
	go func() { gates <- gate(ctx) }()
	go func() { loops <- loop(ctx) }()
	var first, other error
	select {
	case first = <-gates:
		if first != nil {
			return first
		}
		cancel()
		other = <-loops
	case first = <-loops:
		cancel()
		other = <-gates
	}
	if first == nil && !errors.Is(other, context.Canceled) {
		return other
	}
	return first
}
