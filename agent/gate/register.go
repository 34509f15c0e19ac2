// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// mostConns bounds the connections of all containers together. A pod has one shim for each gated
// container, and a shim has one connection. Each connection takes about 50 KiB of the agent's
// memory limit of 64 MiB. The same number bounds the living shims that the server knows.
const mostConns = 256

// mostTrouble bounds the bytes of a shim's failure that the server keeps. An Event shows less.
const mostTrouble = 4 << 10

// register has what the server knows about all shims of the pod. The server holds its own mutex
// during each call.
type register struct {
	peers  []*peer
	ledger *ledger
	outbox *outbox
	asides asides
	log    *slog.Logger
}

// find returns the shim with this id; nil if the server knows none.
func (r *register) find(id ShimID) *peer {
	for _, p := range r.peers {
		if p.report.Shim == id {
			return p
		}
	}
	return nil
}

// meet processes a shim's first message on a connection, and reports whether the shim was unknown
// before. If a known shim names another container than before, or if another process speaks for it,
// meet returns an error.
func (r *register) meet(c Conn, process Process, st Report, now time.Duration) (p *peer, unknown bool, err error) {
	p = r.find(st.Shim)
	switch {
	case p == nil && len(r.peers) == mostConns:
		return nil, false, fmt.Errorf("%w: one shim too many, of %q", ErrMessage, st.Container)
	case p == nil:
		unknown = true
		p = &peer{process: process}
		if e := r.ledger.entries[st.Container]; e.names(st.Shim) {
			p.granted = e.Hold
		}
		r.peers = append(r.peers, p)
	case p.report.Container != st.Container:
		return nil, false, fmt.Errorf("%w: shim of %q says %q", ErrMessage, p.report.Container, st.Container)
	case !p.process.Same(process):
		return nil, false, fmt.Errorf("%w: another process says that it is the shim of %q", ErrMessage, st.Container)
	case p.conn != nil:
		p.conn.Close()
		close(p.hungUp)
		r.asides.unanswered(p)
	}
	p.conn, p.hungUp = c, make(chan struct{})
	r.learn(p, st, now)
	if p.drain != nil {
		// A failed send needs no more work: sendDrain or the shim has closed the connection.
		_ = p.sendDrain(now)
	}
	return p, unknown, nil
}

// learn stores the shim's state, and puts a report with that state into the outbox. A Trouble with
// an unknown reason stays out of the report, because any program of the pod can send any text as a
// reason. Then the report keeps the shim's last known Trouble.
func (r *register) learn(p *peer, st Report, now time.Duration) {
	p.heard = now
	if st.Trouble != (Trouble{}) && !st.Trouble.Known() {
		st.Trouble = p.report.Trouble
		if !p.invents {
			p.invents = true
			r.log.Warn("a failure with an unknown reason is ignored, and so is each later one of this shim", "container", st.Container)
		}
	}
	st.Trouble.Message = api.Brief(st.Trouble.Message, mostTrouble)
	st.Connected = true
	p.report = st
	if p.drain != nil && p.over(p.drain.hold) {
		p.drain = nil
	}
	r.clearNote(p)
	r.report(p)
	r.review(st.Container)
}

// hangUp reports the end of a connection, unless another connection of the shim has replaced
// it.
func (r *register) hangUp(p *peer, c Conn) {
	if p.conn != c {
		return
	}
	close(p.hungUp)
	p.conn = nil
	r.asides.unanswered(p)
	p.report.Connected, p.report.Silent = false, false
	r.report(p)
}

// bury reports that the shim is dead, if the end of its process proves that none of its
// descendants lives.
func (r *register) bury(p *peer) {
	if !p.report.PID1 && !p.empty() {
		r.log.Warn("shim ended, which proves nothing: it was not PID 1 of its namespace",
			"shim", p.report.Shim, "container", p.report.Container)
		return
	}
	p.report.Dead = true
	r.clearNote(p)
	r.peers = slices.DeleteFunc(r.peers, func(other *peer) bool { return other == p })
	r.report(p)
	r.review(p.report.Container)
}

// clearNote removes the ledger's note about the shim, if the shim is dead or the hold in the note
// is over.
func (r *register) clearNote(p *peer) {
	e := r.ledger.entries[p.report.Container]
	if !e.names(p.report.Shim) || !p.report.Dead && !p.over(e.Hold) {
		return
	}
	if err := r.ledger.clear(p.report.Container); err != nil {
		r.log.Warn("note of a grant stays", "container", p.report.Container, "err", err)
	}
}

// review reports all shims of the container again, after a change of the ledger that may have
// changed their unproven holds. The outbox drops each report without a change.
func (r *register) review(container string) {
	for _, p := range r.peers {
		if p.report.Container == container {
			r.report(p)
		}
	}
}

// report puts the shim's state into the outbox. The report of a living shim contains the
// unproven hold, if the ledger has a note of a hold for another shim of the container.
func (r *register) report(p *peer) {
	report := p.report
	if !report.Dead {
		report.Unproven = r.ledger.unproven(report.Container, report.Shim)
	}
	r.outbox.put(report)
}

// peer is the agent's end of one shim's connection, with the shim's last state.
type peer struct {
	report  Report
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
	return p.report.Phase == Ended || p.report.Phase == Waiting && p.report.Hold == hold
}

// empty reports whether the shim certainly has no child: its last message shows no child, and no
// grant can have arrived since.
func (p *peer) empty() bool {
	return p.over(p.granted) || p.report.Phase == Waiting && p.granted == ""
}

// holdToDrain returns the hold under which the shim has a child, or may still start one.
func (p *peer) holdToDrain() string {
	if p.report.HasChild() {
		return p.report.Hold
	}
	return p.granted
}

// keep keeps a drain until the shim has carried it out. If the peer already keeps a drain of the
// same hold, keep merges the two: the earlier of the two ends of the grace counts. If one of the
// two drains ends the container, the merged drain ends the container, too.
func (p *peer) keep(hold string, drain Drain, now time.Duration) {
	until := now + min(max(drain.Grace, 0), longest)
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
	err := p.send(Order{Drain: &Drain{
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

func (p *peer) send(o Order) error {
	b, err := Encode(o)
	if err != nil {
		return err
	}
	return p.conn.Send(b)
}

// outbox queues the last Report of each shim for the agent's loop. So a slow loop delays no
// shim.
type outbox struct {
	mu      sync.Mutex
	last    map[ShimID]Report // the newest report of each shim
	waiting []ShimID          // the queue of the shims with an undelivered report
	changed chan struct{}
}

func newOutbox() *outbox {
	return &outbox{last: map[ShimID]Report{}, changed: make(chan struct{}, 1)}
}

// put queues the report if it differs from the last report of the shim.
func (o *outbox) put(r Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if last, known := o.last[r.Shim]; known && last == r {
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

func (o *outbox) deliver(ctx context.Context, to chan<- Report) {
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

func (o *outbox) first() (Report, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return Report{}, false
	}
	return o.last[o.waiting[0]], true
}

// taken removes a delivered report from the queue, unless the shim has a newer report by now.
func (o *outbox) taken(r Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last[r.Shim] != r {
		return
	}
	o.waiting = o.waiting[1:]
	if r.Dead {
		delete(o.last, r.Shim)
	}
}
