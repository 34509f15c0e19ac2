// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// These constants bound the rate of reads, however often a program calls. A program that calls once in
// each second never waits for a read. The wait at the same barrier also sends requests, and both
// together send at most two requests a second for one Lease.
const (
	looksEvery = time.Second
	looksBurst = 10
)

// looks has the reads of a barrier's first Lease, for calls that do not wait at the barrier. At most
// one of these reads is under way, because each request needs a TLS connection. The connections of
// hundreds of calls would exceed the agent's memory.
type looks struct {
	// The channel "turn" has room for one value. A call that has sent this value may read.
	turn chan struct{}
	// begun counts the reads so far.
	begun atomic.Int64
	// The field "pace" bounds the rate of the reads. Only the call with the turn uses this field.
	pace pace.Pace
	// The field "closed" is the number of the last read that showed a closed barrier. Only the call
	// with the turn uses this field.
	closed int64
}

// look reads whether the barrier is open, unless this process has already seen the open barrier. The
// answer of one read also serves each other call that began before this read. Before enroll has made
// the Lease, the barrier is not open.
func (a *arrival) look(ctx context.Context) (open bool, p *problem) {
	if a.isOpen() {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patienceOf(a.budget))
	defer cancel()
	before := a.looks.begun.Load()
	select {
	case a.looks.turn <- struct{}{}:
		defer func() { <-a.looks.turn }()
	case <-ctx.Done():
		return false, unavailableProblem
	}
	if !a.isOpen() && a.looks.closed > before {
		return false, nil
	}
	if pause := a.looks.pace.NextAt() - a.config.Clock(); pause > 0 {
		select {
		case <-a.opened:
		case <-time.After(pause):
		case <-ctx.Done():
			return false, unavailableProblem
		}
	}
	if a.isOpen() {
		return true, nil
	}
	a.looks.pace.Spend(a.config.Clock())
	number := a.looks.begun.Add(1)
	switch l, err := a.config.Barriers.GetLease(ctx, a.leases[0]); {
	case err != nil && !errors.Is(err, kube.ErrNotFound):
		return false, unavailableProblem
	case err != nil, api.Opened(l.Annotations[api.OpenedAnnotation]) < a.of.Size:
		a.looks.closed = number
		return false, nil
	}
	a.open()
	return true, nil
}
