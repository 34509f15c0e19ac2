// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// mostConns bounds the connections of all containers together. A pod has one shim for each gated
// container, and a shim has one connection. Each connection takes about 50 KiB of the agent's
// memory limit of 64 MiB. The same number bounds the living shims that the desk knows.
const mostConns = 256

// mostTrouble bounds the bytes of a shim's failure that the desk keeps. An Event shows less.
const mostTrouble = 4 << 10

// register has what the desk knows about all shims of the pod. The server holds its own mutex
// during each call.
type register struct {
	peers  []*peer
	ledger *ledger
	outbox *outbox
	asides asides
	log    *slog.Logger
}

// find returns the shim with this id; nil if the desk knows none.
func (r *register) find(id gate.ShimID) *peer {
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
func (r *register) meet(c Conn, process Process, st gate.State, now time.Duration) (p *peer, unknown bool, err error) {
	p = r.find(st.Shim)
	switch {
	case p == nil && len(r.peers) == mostConns:
		return nil, false, fmt.Errorf("%w: one shim too many, of %q", gate.ErrMessage, st.Container)
	case p == nil:
		unknown = true
		p = &peer{pid1: st.PID1, process: process}
		if e := r.ledger.entries[st.Container]; e.names(st.Shim) {
			p.granted = e.Hold
		}
		r.peers = append(r.peers, p)
	case p.report.Container != st.Container:
		return nil, false, fmt.Errorf("%w: shim of %q says %q", gate.ErrMessage, p.report.Container, st.Container)
	case !p.process.Same(process):
		return nil, false, fmt.Errorf("%w: another process says that it is the shim of %q", gate.ErrMessage, st.Container)
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
func (r *register) learn(p *peer, st gate.State, now time.Duration) {
	p.heard = now
	trouble := st.Trouble
	if trouble != (gate.Trouble{}) && !trouble.Known() {
		trouble = p.report.Trouble
		if !p.invents {
			p.invents = true
			r.log.Warn("a failure with an unknown reason is ignored, and so is each later one of this shim", "container", st.Container)
		}
	}
	trouble.Message = api.Brief(trouble.Message, mostTrouble)
	p.report = gate.Report{
		Shim: st.Shim, Container: st.Container, Phase: st.Phase, Hold: st.Hold,
		Slots: st.Slots, Began: st.Began, Since: st.Since, Starting: st.Starting, Stopping: st.Stopping, PreStop: st.PreStop,
		Trouble: trouble, Completed: st.Completed, Failed: st.Failed, Leap: st.Leap, Connected: true,
	}
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
	if !p.pid1 && !p.empty() {
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
