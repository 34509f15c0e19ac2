// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Readiness is the gate of an application that also runs in standbys. A grant permits the pod to
// be Ready.
type Readiness struct {
	now func() time.Duration
	box *mailbox

	mu     sync.Mutex
	report gate.Report
}

// NewReadiness returns a gate that reports nothing until the API server has stored that the pod
// is not Ready. An earlier agent process may have stored that the pod is Ready. While that status
// lasts, the hold of the earlier process is not over. But a report with the phase Waiting would
// state that the hold is over. The argument "now" is a function that reads CLOCK_BOOTTIME.
func NewReadiness(now func() time.Duration) *Readiness {
	r := &Readiness{now: now, box: newMailbox()}
	r.report = gate.Report{
		Shim: gate.ShimID(rand.Text()), Container: Container,
		Phase: gate.Waiting, Since: now(),
	}
	return r
}

// Reports implements the agent's gate.
func (r *Readiness) Reports() <-chan gate.Report { return r.box.reports }

// Run delivers reports until ctx ends.
func (r *Readiness) Run(ctx context.Context) error {
	r.box.deliver(ctx)
	return nil
}

// Grant permits the pod to be Ready.
func (r *Readiness) Grant(id gate.ShimID, g gate.Grant) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case id != r.report.Shim:
		return gate.ErrUnknown
	case r.report.Phase != gate.Waiting && r.report.Hold == g.Hold:
		return nil // a renewal changes nothing: the agent's loop itself keeps the deadline
	case r.report.Phase != gate.Waiting, r.report.Hold == g.Hold:
		return gate.ErrOver
	}
	r.report.Hold, r.report.Slots = g.Hold, g.Slots
	r.enter(gate.Running)
	return nil
}

// Drain withdraws the permission to be Ready. The hold is over once the API server has stored
// that the pod is not Ready.
func (r *Readiness) Drain(id gate.ShimID, _ string, _ time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case id != r.report.Shim:
		return gate.ErrUnknown
	case r.report.Phase == gate.Running:
		r.enter(gate.Draining)
	}
	return nil
}

// Shown receives the readiness that the API server has stored. If the pod is not Ready, a hold that
// drains is over.
func (r *Readiness) Shown(ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ready:
	case r.report.Phase == gate.Draining:
		r.enter(gate.Waiting)
	case !r.report.Connected:
		r.report.Connected = true
		r.box.put(r.report)
	}
}

func (r *Readiness) enter(p gate.Phase) {
	r.report.Phase, r.report.Since = p, r.now()
	r.box.put(r.report)
}
