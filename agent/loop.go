// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/status"
)

// errGateClosed means that the gate ended before the agent did.
var errGateClosed = errors.New("agent: the gate is closed")

// loop is the only part of the agent that waits for events. The loop also starts all requests of
// the agent, except those of package status.
type loop struct {
	config   Config
	unit     *unit
	requests *requests
	asker    *asker
	offerer  *offerer
	starts   *starts
	posts    posts
	yields   chan struct{}
	group    sync.WaitGroup
	// disrupted is closed once the pod's condition DisruptionTarget is stored or refused; nil if the
	// agent has not ended the pod.
	disrupted chan struct{}
	stop      <-chan struct{}
	// unanswered delivers the address of a pod that did not answer a forwarded connection.
	unanswered <-chan string
	// The field "now" is the instant of the last event.
	now time.Duration
}

func newLoop(c Config, u *unit, p posts) *loop {
	l := &loop{config: c, unit: u, posts: p, yields: make(chan struct{}, 1)}
	l.requests = newRequests(u, p, &l.group)
	l.starts = newStarts(u, l.requests)
	l.asker, l.offerer = &asker{requests: l.requests}, newOfferer(l.requests)
	if c.Forwarder != nil {
		l.unanswered = c.Forwarder.Unanswered()
	}
	return l
}

// begin sets the instant at which the agent begins, and the channel that stops the agent.
func (l *loop) begin(stop <-chan struct{}) { l.now, l.stop = l.config.Clock(), stop }

// appear writes the pod's status, unless d.Keep reports that the status stays as it is. If the
// status depends on whether the holder's pod answers connections, appear also checks that pod. The
// result is the instant of the next decision.
func (l *loop) appear(ctx context.Context, d status.Decision) (wake time.Duration) {
	if !d.Keep {
		l.unit.status.Show(d.Appearance)
	}
	if d.Check != "" {
		l.group.Go(func() { l.checkHolder(ctx, d.Check) })
	}
	return d.Wake
}

func (l *loop) checkHolder(ctx context.Context, address string) {
	bounded, cancel := context.WithTimeout(ctx, l.unit.self.Budget.RequestTimeout)
	defer cancel()
	err := l.config.Forwarder.Reachable(bounded, address)
	l.posts.post(ctx, func(now time.Duration) { l.unit.readiness.Reached(now, address, err) })
}

// wait waits for one event, or until the instant wake, and stores what the event reports.
// Timers only wake the loop; only the clock tells the time.
func (l *loop) wait(ctx context.Context, wake time.Duration) error {
	l.unit.metrics.Looked()
	timer := time.NewTimer(instant.Sleep(l.config.Clock(), wake))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r, ok := <-l.config.Gate.Reports():
		if !ok {
			return errGateClosed
		}
		l.now = l.config.Clock()
		l.unit.reported(l.now, r)
	case f := <-l.posts:
		l.now = l.config.Clock()
		f(l.now)
	case address := <-l.unanswered:
		l.now = l.config.Clock()
		l.unit.readiness.Unanswered(address)
	case <-l.unit.probes.News():
		l.now = l.config.Clock()
		l.unit.noticed(l.now)
	case <-l.stop:
		l.now, l.stop = l.config.Clock(), nil
		l.unit.stop(l.now)
	case <-l.config.Leaps:
		l.now = l.config.Clock()
		l.unit.leapt(l.now)
	case <-l.yields:
		l.now, l.unit.yielding = l.config.Clock(), true
	case <-timer.C:
		l.now = l.config.Clock()
	}
	return nil
}
