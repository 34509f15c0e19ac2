// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"slices"
	"sync"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// outbox queues the last Report of each shim for the agent's loop. So a slow loop delays no
// shim.
type outbox struct {
	mu      sync.Mutex
	last    map[gate.ShimID]gate.Report // the newest report of each shim
	waiting []gate.ShimID               // the queue of the shims with an undelivered report
	changed chan struct{}
}

func newOutbox() *outbox {
	return &outbox{last: map[gate.ShimID]gate.Report{}, changed: make(chan struct{}, 1)}
}

// put queues the report if it differs from the last report of the shim.
func (o *outbox) put(r gate.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, known := o.last[r.Shim]; known && same(last, r) {
		return
	}
	o.last[r.Shim] = r
	if !slices.Contains(o.waiting, r.Shim) {
		o.waiting = append(o.waiting, r.Shim)
	}
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func same(a, b gate.Report) bool {
	slots := slices.Equal(a.Slots, b.Slots)
	a.Slots, b.Slots = nil, nil
	return slots && a.Shim == b.Shim && a.Container == b.Container && a.Phase == b.Phase &&
		a.Hold == b.Hold && a.Began == b.Began && a.Since == b.Since && a.Completed == b.Completed && a.Failed == b.Failed &&
		a.Leap == b.Leap && a.Connected == b.Connected &&
		a.Starting == b.Starting && a.Stopping == b.Stopping && a.PreStop == b.PreStop &&
		a.Trouble == b.Trouble && a.Dead == b.Dead && a.Silent == b.Silent && a.Unproven == b.Unproven
}

func (o *outbox) deliver(ctx context.Context, to chan<- gate.Report) {
	for {
		r, some := o.first()
		out := to
		if !some {
			out = nil
		}
		select {
		case out <- r:
			o.taken(r)
		case <-o.changed: // a newer report may have replaced this one
		case <-ctx.Done():
			return
		}
	}
}

func (o *outbox) first() (gate.Report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return gate.Report{}, false
	}
	return o.last[o.waiting[0]], true
}

// taken removes a delivered report from the queue, unless the shim has a newer report by now.
func (o *outbox) taken(r gate.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !same(o.last[r.Shim], r) {
		return
	}
	o.waiting = o.waiting[1:]
	if r.Dead {
		delete(o.last, r.Shim)
	}
}
