// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// peer is the agent's end of one shim's connection, with the shim's last state.
type peer struct {
	report  gate.Report
	pid1    bool
	conn    Conn          // nil while there is none
	hungUp  chan struct{} // closed when conn was read to its end, or gave way to another
	heard   time.Duration
	granted string // the last hold granted to it
	drain   *pendingDrain
}

// pendingDrain is a drain that the shim has not answered.
type pendingDrain struct {
	hold, reason string
	until        time.Duration
	end          bool
}

// over reports whether the shim has reported the hold over: nothing lives under the
// hold, and nothing ever will.
func (p *peer) over(hold string) bool {
	return p.report.Phase == gate.Ended || p.report.Phase == gate.Waiting && p.report.Hold == hold
}

// empty reports whether the shim's last message shows that the shim has no child, and
// no grant can have arrived since.
func (p *peer) empty() bool {
	return p.over(p.granted) || p.report.Phase == gate.Waiting && p.granted == ""
}

// holdToDrain returns the hold whose child the shim has, or may yet start.
func (p *peer) holdToDrain() string {
	if p.report.Phase == gate.Running || p.report.Phase == gate.Draining {
		return p.report.Hold
	}
	return p.granted
}

// keep keeps a drain until the shim has answered it. Two drains of one hold become one
// drain, which has the earlier of their instants. This drain ends the container if one of
// the two drains ends the container.
func (p *peer) keep(hold string, ask gate.Drain, now time.Duration) {
	until := now + min(max(ask.Grace, 0), gate.Longest)
	if p.drain == nil || p.drain.hold != hold {
		p.drain = &pendingDrain{hold: hold, reason: ask.Reason, until: until, end: ask.End}
		return
	}
	if until < p.drain.until {
		p.drain.reason, p.drain.until = ask.Reason, until
	}
	p.drain.end = p.drain.end || ask.End
}

// sendDrain sends the kept drain.
func (p *peer) sendDrain(now time.Duration) error {
	d := p.drain
	err := p.send(gate.Order{Drain: &gate.Drain{
		Hold: d.hold, Reason: d.reason, Grace: max(d.until-now, 0), End: d.end,
	}})
	if err != nil {
		p.hangUpAfter(err)
		return fmt.Errorf("send drain: %w", err)
	}
	return nil
}

// hangUpAfter closes a connection over which an order cannot be sent. The socket of a shim
// that was frozen for long has no room for another order. After the hang-up the shim
// connects anew, and then receives the order. If the shim itself has closed the connection,
// hangUpAfter does nothing, because the shim's last messages may still be in the socket.
func (p *peer) hangUpAfter(err error) {
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		p.conn.Close()
	}
}

func (p *peer) send(o gate.Order) error {
	b, err := gate.Encode(o)
	if err != nil {
		return err
	}
	return p.conn.Send(b)
}
