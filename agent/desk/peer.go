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
	process Process
	conn    Conn          // nil without a connection
	hungUp  chan struct{} // closed when conn was read to its end, or another connection has replaced conn
	heard   time.Duration
	granted string // the hold of the last grant to the shim
	drain   *pendingDrain
	invents bool // the shim has sent a Trouble with an unknown reason
}

// pendingDrain is a drain that the shim has not carried out yet.
type pendingDrain struct {
	hold, reason string
	until        time.Duration
	end          bool
}

// The method "over" reports whether the shim has said that the hold is over: no descendant lives
// under the hold, and none will be started.
func (p *peer) over(hold string) bool {
	return p.report.Phase == gate.Ended || p.report.Phase == gate.Waiting && p.report.Hold == hold
}

// empty reports whether the shim certainly has no child: its last message shows no child, and no
// grant can have arrived since.
func (p *peer) empty() bool {
	return p.over(p.granted) || p.report.Phase == gate.Waiting && p.granted == ""
}

// holdToDrain returns the hold under which the shim has a child, or may still start one.
func (p *peer) holdToDrain() string {
	if p.report.Phase == gate.Running || p.report.Phase == gate.Draining {
		return p.report.Hold
	}
	return p.granted
}

// keep keeps a drain until the shim has carried it out. If the peer already keeps a drain of the
// same hold, keep merges the two: the earlier of the two ends of the grace counts. If one of the
// two drains ends the container, the merged drain ends the container, too.
func (p *peer) keep(hold string, drain gate.Drain, now time.Duration) {
	until := now + min(max(drain.Grace, 0), gate.Longest)
	if p.drain == nil || p.drain.hold != hold {
		p.drain = &pendingDrain{hold: hold, reason: drain.Reason, until: until, end: drain.End}
		return
	}
	if until < p.drain.until {
		p.drain.reason, p.drain.until = drain.Reason, until
	}
	p.drain.end = p.drain.end || drain.End
}

// sendDrain sends the drain that the peer keeps.
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

// hangUpAfter closes a connection over which an order could not be sent. The socket of a shim
// that was frozen for long has no room for another order. After the hang-up the shim connects
// again, and then receives the order. If the shim itself has closed the connection, hangUpAfter
// does nothing, because the shim's last messages may still be in the socket.
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
