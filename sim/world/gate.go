// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// note is an entry of the ledger, which survives the agent in the pod's volume.
type note struct {
	shim gate.ShimID
	hold string
	boot string
}

// gateway mirrors gate.Server: the agent's end of the connections to the shims
// of its pod. Everything in it is done with the world's mutex held.
type gateway struct {
	agent   *agentProcess
	pod     *pod
	peers   []*peer
	last    map[gate.ShimID]gate.Report
	waiting []gate.ShimID
	changed chan struct{}
	reports chan gate.Report
}

// peer mirrors gate.peer.
type peer struct {
	id      gate.ShimID
	report  gate.Report
	granted string
	drain   *order
	until   time.Duration // of the drain
	link    *link         // nil while there is none
}

func newGateway(a *agentProcess) *gateway {
	g := &gateway{
		agent: a, pod: a.pod,
		last: map[gate.ShimID]gate.Report{}, changed: make(chan struct{}, 1), reports: make(chan gate.Report),
	}
	for _, c := range g.pod.containers {
		if n, ok := g.pod.notes[c.name]; ok && n.boot != g.pod.node.boot {
			delete(g.pod.notes, c.name) // whatever ran then is dead
		}
	}
	return g
}

// Reports implements agent.Gate.
func (g *gateway) Reports() <-chan gate.Report { return g.reports }

// deliver mirrors outbox.deliver. Where the loop is late, it finds the last of
// several reports.
func (g *gateway) deliver() {
	r := g.agent.process.w.source(g.agent.name + g.pod.uid + " reader")
	for {
		if late := g.late(r); late > 0 {
			select {
			case <-time.After(late):
			case <-g.agent.ctx.Done():
				return
			}
		}
		g.agent.w.mu.Lock()
		var next gate.Report
		var out chan<- gate.Report
		if len(g.waiting) > 0 {
			next, out = g.last[g.waiting[0]], g.reports
		}
		g.agent.w.mu.Unlock()
		select {
		case out <- next:
			g.agent.w.do(func() { g.taken(next) })
		case <-g.changed:
		case <-g.agent.ctx.Done():
			return
		}
	}
}

func (g *gateway) late(r *rand.Rand) time.Duration {
	g.agent.w.mu.Lock()
	defer g.agent.w.mu.Unlock()
	if g.pod.lateReader == 0 {
		return 0
	}
	return between(r, 0, g.pod.lateReader)
}

func (g *gateway) taken(r gate.Report) {
	if !reflect.DeepEqual(g.last[r.Shim], r) {
		return
	}
	g.waiting = g.waiting[1:]
	if r.Dead {
		delete(g.last, r.Shim)
	}
}

func (g *gateway) put(r gate.Report) {
	if !r.Dead {
		r.Unproven = g.unproven(r.Container, r.Shim)
	}
	if last, known := g.last[r.Shim]; known && reflect.DeepEqual(last, r) {
		return
	}
	g.last[r.Shim] = r
	if !slices.Contains(g.waiting, r.Shim) {
		g.waiting = append(g.waiting, r.Shim)
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *gateway) unproven(container string, id gate.ShimID) string {
	n := g.pod.notes[container]
	if n.shim == id {
		return ""
	}
	return n.hold
}

func (g *gateway) find(id gate.ShimID) *peer {
	for _, p := range g.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

// Grant implements agent.Gate as gate.Server does.
func (g *gateway) Grant(id gate.ShimID, grant gate.Grant) error {
	if !g.agent.enter() {
		return errDead
	}
	defer g.agent.w.mu.Unlock()
	p := g.find(id)
	switch {
	case p == nil:
		return gate.ErrUnknown
	case p.link == nil:
		return gate.ErrNotConnected
	case g.unproven(p.report.Container, id) == grant.Hold:
		return gate.ErrUnproven
	case p.over(grant.Hold):
		return gate.ErrOver
	}
	g.pod.notes[p.report.Container] = note{shim: id, hold: grant.Hold, boot: g.pod.node.boot}
	p.granted = grant.Hold
	g.review(p.report.Container)
	p.link.toShim(order{grant: &grant})
	return nil
}

// granted mirrors gate.Server.Granted.
func (g *gateway) granted(container, hold string) bool {
	if !g.agent.enter() {
		return true
	}
	defer g.agent.w.mu.Unlock()
	return g.pod.notes[container].hold == hold
}

// Drain implements agent.Gate as gate.Server does.
func (g *gateway) Drain(id gate.ShimID, reason string, grace time.Duration) error {
	if !g.agent.enter() {
		return errDead
	}
	defer g.agent.w.mu.Unlock()
	p := g.find(id)
	if p == nil {
		return gate.ErrUnknown
	}
	hold := p.granted
	if p.report.Phase == gate.Running || p.report.Phase == gate.Draining {
		hold = p.report.Hold
	}
	if hold == "" || p.over(hold) {
		return nil
	}
	until := g.pod.node.now() + max(grace, 0)
	if p.drain == nil || p.drain.hold != hold || until < p.until {
		p.drain, p.until = &order{hold: hold, reason: reason}, until
	}
	if p.link != nil {
		p.sendDrain(g)
	}
	return nil
}

func (p *peer) sendDrain(g *gateway) {
	o := *p.drain
	o.grace = max(p.until-g.pod.node.now(), 0)
	p.link.toShim(o)
}

// over mirrors phaseOver.
func (p *peer) over(hold string) bool {
	return p.report.Phase == gate.Ended || p.report.Phase == gate.Waiting && p.report.Hold == hold
}

// welcome takes a new connection.
func (g *gateway) welcome(l *link, st state) {
	p := g.find(st.id)
	if p == nil {
		p = &peer{id: st.id}
		if n := g.pod.notes[st.container]; n.shim == st.id {
			p.granted = n.hold
		}
		g.peers = append(g.peers, p)
	}
	p.link = l
	g.learn(p, st)
	if p.drain != nil {
		p.sendDrain(g)
	}
}

// hear takes a message; a shim that has ended is hung up on.
func (g *gateway) hear(l *link, st state) {
	p := g.find(st.id)
	if p == nil || p.link != l {
		g.welcome(l, st)
	} else {
		g.learn(p, st)
	}
	if st.phase == gate.Ended {
		l.close()
	}
}

func (g *gateway) learn(p *peer, st state) {
	p.report = gate.Report{
		Shim: st.id, Container: st.container, Phase: st.phase, Hold: st.hold,
		Slots: st.slots, Began: st.began, Since: st.since, Completed: st.completed, Leap: st.leap, Connected: true,
	}
	if p.drain != nil && p.over(p.drain.hold) {
		p.drain = nil
	}
	g.settle(p)
	g.put(p.report)
	g.review(st.container)
}

func (g *gateway) settle(p *peer) {
	n, ok := g.pod.notes[p.report.Container]
	if ok && n.shim == p.id && (p.report.Dead || p.over(n.hold)) {
		delete(g.pod.notes, p.report.Container)
	}
}

func (g *gateway) review(container string) {
	for _, p := range g.peers {
		if p.report.Container == container {
			g.put(p.report)
		}
	}
}

func (g *gateway) hungUp(l *link, id gate.ShimID) {
	if p := g.find(id); p != nil && p.link == l {
		p.link = nil
		p.report.Connected, p.report.Silent = false, false
		g.put(p.report)
	}
}

func (g *gateway) silent(id gate.ShimID) {
	if p := g.find(id); p != nil && p.link != nil {
		p.report.Silent = true
		g.put(p.report)
	}
}

// bury reports a shim whose pidfd became readable: nothing in its namespace
// lives.
func (g *gateway) bury(id gate.ShimID) {
	p := g.find(id)
	if p == nil {
		return
	}
	p.link = nil
	p.report.Connected, p.report.Silent = false, false
	p.report.Dead = true
	g.settle(p)
	g.peers = slices.DeleteFunc(g.peers, func(other *peer) bool { return other == p })
	g.put(p.report)
	g.review(p.report.Container)
}

// link is one connection between a shim and an agent process. Messages arrive
// in order, a little later; what is on its way when it ends may be lost.
type link struct {
	gateway  *gateway
	shim     *shim
	up       bool
	toServer time.Duration
	toClient time.Duration
}

const instant = 2 * time.Millisecond

// order mirrors gate's order.
type order struct {
	grant  *gate.Grant
	hold   string // of a drain
	reason string
	grace  time.Duration
}

// state mirrors gate's state.
type state struct {
	id        gate.ShimID
	container string
	phase     gate.Phase
	hold      string
	slots     []gate.SlotToken
	since     time.Duration
	completed bool
	leap      int
	began     time.Duration
}

func (l *link) toShim(o order) {
	w := l.gateway.agent.w
	// Drawn for the instant, not in a row: the loop may say the same twice in
	// one instant, or not.
	dice := w.source(fmt.Sprint(l.shim.name, w.now()))
	at := max(l.toClient+1, w.now()+between(dice, 50*time.Microsecond, instant))
	l.toClient = at
	w.after(at-w.now(), func() {
		if l.up || l.shim.link == l {
			l.shim.whenThawed(func() {
				if l.shim.link == l {
					l.shim.take(o)
				}
			})
		}
	})
}

func (l *link) toAgent(st state) {
	w := l.gateway.agent.w
	at := max(l.toServer+1, w.now()+between(l.shim.rng, 50*time.Microsecond, instant))
	l.toServer = at
	w.after(at-w.now(), func() {
		if a := l.gateway.agent; !a.dead {
			a.whenThawed(func() {
				// Its last words may still be in the socket.
				if !a.dead && l.gateway.heardOf(l) {
					l.gateway.hear(l, st)
				}
			})
		}
	})
}

// heardOf: the agent's end has not come to the end of this connection yet.
func (g *gateway) heardOf(l *link) bool { return l.up || l.shim.dead }

// close ends the connection; each side notices by itself.
func (l *link) close() {
	if !l.up {
		return
	}
	l.up = false
	w := l.gateway.agent.w
	w.after(between(l.shim.rng, 50*time.Microsecond, instant), func() {
		l.shim.whenThawed(func() { l.shim.lostLink(l) })
	})
	at := max(l.toServer+1, w.now()+between(l.shim.rng, 50*time.Microsecond, instant))
	w.after(at-w.now(), func() {
		a := l.gateway.agent
		a.whenThawed(func() { l.gateway.hungUp(l, l.shim.id) })
	})
}
