// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// orders sends grants and other orders to the shims. For each connection, orders remembers the
// last order of each kind.
type orders struct {
	gate  Gate
	shims Shims
	proof *gate.Proof
	log   *slog.Logger
	sent  map[gate.ShimID]*sent
}

// sent has the orders that the agent has sent to one shim over its present connection.
type sent struct {
	// The field "until" is the deadline of the last grant. The field "stopDelay" is the time for
	// which that grant lets the shim hold back a stop signal.
	until, stopDelay time.Duration
	// If the last grant could not be sent, the agent sends another one at the instant retryAt.
	retryAt time.Duration
	// answered is the number of the last leap of the shim if the last grant let the shim thaw its
	// child after that leap. If that grant thawed no child, the field is zero.
	answered int
	// The field "drained" is the hold of the last order to drain. The field "killed" is the hold of
	// the last order to kill the child immediately. The field "ended" is the hold of the last order
	// to end the container.
	drained, killed, ended string
	// The field "leaps" is the claim's count of leaps just after this shim last reported a leap. The
	// claim counts the leaps of all shims. The value stays when the shim connects again.
	leaps int
	// dismissed is the instant at which the shim began the wait that the last dismissal should end.
	// At the instant dismissAt the agent repeats the dismissal.
	dismissed, dismissAt time.Duration
	// notified reports that the shim has got its notice.
	notified bool
}

func newOrders(c Config, p *gate.Proof) *orders {
	return &orders{gate: c.Gate, shims: c.Shims, proof: p, log: c.Log, sent: map[gate.ShimID]*sent{}}
}

// The method "to" returns the orders that the agent has sent to the shim.
func (o *orders) to(id gate.ShimID) sent {
	if s := o.sent[id]; s != nil {
		return *s
	}
	return sent{}
}

// learn updates the stored orders by a shim's report r. The argument "last" is
// the previous report of the same shim.
func (o *orders) learn(last, r gate.Report) {
	switch s := o.sent[r.Shim]; {
	case r.Dead:
		delete(o.sent, r.Shim)
	case s == nil:
		o.sent[r.Shim] = &sent{}
	case r.Connected && !last.Connected:
		// Orders over the old connection may not have arrived, so the agent sends them again.
		*s = sent{leaps: s.leaps, dismissed: s.dismissed, notified: s.notified}
	}
}

// leapt remembers a leap that the shim has reported. The argument "leaps" is the claim's count of
// all leaps so far.
func (o *orders) leapt(id gate.ShimID, leaps int) { o.sent[id].leaps = leaps }

// grant sends a grant to the shim. From the call on, the shim may have a child of the granted hold,
// even if the connection breaks. After every error the agent writes a line into the log, and sends
// another grant at the instant "again", if the hold goes on. The result is an error only for the
// hold's first grant to the shim, and only [gate.ErrNotNoted] or [gate.ErrUnproven]. After these two
// errors the shim certainly has no child of the hold.
func (o *orders) grant(id gate.ShimID, g gate.Grant, again time.Duration) error {
	granted := o.proof.Granted(g.Hold, id)
	o.proof.Grant(g.Hold, id)
	s := o.sent[id]
	s.until, s.stopDelay, s.answered, s.retryAt = g.Deadline, g.StopDelay, g.Leap, 0
	err := o.gate.Grant(id, g)
	if err == nil {
		return nil
	}
	o.log.Warn("grant was not sent", "shim", id, "err", err)
	s.until, s.answered, s.retryAt = 0, 0, again
	if granted || !errors.Is(err, gate.ErrNotNoted) && !errors.Is(err, gate.ErrUnproven) {
		return nil
	}
	o.proof.Clear(g.Hold, id)
	return err
}

// drain orders a shim to drain. A shim that has not yet used its grant of the hold drops that
// grant.
func (o *orders) drain(r gate.Report, hold, reason string, grace time.Duration) {
	s := o.sent[r.Shim]
	if !r.Connected || s.drained == hold {
		return
	}
	s.drained = hold
	if grace == 0 {
		s.killed = hold
	}
	if err := o.gate.Drain(r.Shim, reason, grace); err != nil {
		o.log.Warn("drain was not sent", "shim", r.Shim, "err", err)
	}
}

// end orders a shim to drain, and to end its container with the child's exit code.
func (o *orders) end(r gate.Report, hold, reason string, grace time.Duration) {
	s := o.sent[r.Shim]
	if !r.Connected || s.ended == hold {
		return
	}
	s.drained, s.ended = hold, hold
	if grace == 0 {
		s.killed = hold
	}
	if err := o.shims.End(r.Shim, reason, grace); err != nil {
		o.log.Warn("end was not sent", "shim", r.Shim, "err", err)
	}
}

// kill orders a shim to kill its child immediately, even during a drain whose grace is not over.
func (o *orders) kill(r gate.Report, reason string) {
	s := o.sent[r.Shim]
	if !r.Connected || s.killed == r.Hold {
		return
	}
	s.drained, s.killed = r.Hold, r.Hold
	if err := o.gate.Drain(r.Shim, reason, 0); err != nil {
		o.log.Warn("drain was not sent", "shim", r.Shim, "err", err)
	}
}

// dismissAgain is the time after which a dismissal is repeated if the shim has not ended. A
// shim that gets processor time ends within milliseconds, so a repetition is rare.
const dismissAgain = time.Second

// dismiss orders a waiting shim to end without a child, and repeats the order until the shim
// has ended. The result "first" reports that no dismissal was sent in this wait before. The
// result "again" is the instant of the next repetition.
func (o *orders) dismiss(now time.Duration, r gate.Report, d gate.Dismiss) (first bool, again time.Duration) {
	s := o.sent[r.Shim]
	first = s.dismissed != r.Since
	if !first && now < s.dismissAt {
		return false, s.dismissAt
	}
	s.dismissed, s.dismissAt = r.Since, now+dismissAgain
	if err := o.shims.Dismiss(r.Shim, d); err != nil {
		o.log.Warn("dismissal was not sent", "shim", r.Shim, "err", err)
	}
	return first, s.dismissAt
}

// notify writes a line into the log of a waiting shim's container, once for each shim.
func (o *orders) notify(r gate.Report, line string) {
	s := o.sent[r.Shim]
	if !r.Connected || r.Phase != gate.Waiting || s.notified {
		return
	}
	s.notified = true
	if err := o.shims.Notify(r.Shim, line); err != nil {
		o.log.Warn("notice was not sent", "shim", r.Shim, "err", err)
	}
}
