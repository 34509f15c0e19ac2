// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// bidder is the part of a program that bids for one claim. A bidder bids, works under its hold
// until the instant that the last answer names, gives the hold back, and begins anew.
type bidder struct {
	pod     *localPod
	claim   api.Claim
	name    string
	rng     *rand.Rand
	program *program
	// round counts the bids, so that late events of an earlier bid change nothing.
	round int
	// bids reports that a bid waits for its answer. The field "since" is the instant at which the
	// program sent that bid.
	bids  bool
	since time.Duration
	call  *call // the open call about the bid or the hold; nil for none
	// streams reports that the call of the bid stays open, which shows the agent that the program
	// lives. Otherwise the program sends heartbeats, and the field "every" is the promised longest
	// time between two heartbeats.
	streams bool
	every   time.Duration
	// hold is the agent's last answer about the hold; nil for none. The field "until" is the
	// instant, on the node's clock, by which the program needs another answer.
	hold  *told
	until time.Duration
	work  *work
	// writes reports that the bidder bids for a read-write lock as a writer, or holds the lock as
	// one.
	writes bool
	// due reports that the bidder has not held yet in the present quiet times. Such a bidder must
	// still hold once.
	due bool
	// idles reports that the bidder will bid after a pause. The field "joint" is the open call for
	// several claims in which the bidder takes part; nil for none.
	idles bool
	joint *joint
}

func newBidder(p *localPod, c api.Claim) *bidder {
	name := fmt.Sprintf("%s/%s-%d", p.name, c.Kind.Word, len(p.bidders))
	return &bidder{pod: p, claim: c, name: name, rng: p.w.Source(name)}
}

// begin makes the bidder a part of a new program, which bids a little later.
func (b *bidder) begin(g *program) {
	b.program, b.bids, b.hold, b.call, b.work, b.joint = g, false, nil, nil, nil, nil
	b.later(engine.Between(b.rng, time.Millisecond, 2*time.Second))
}

// later makes the bidder bid after the pause.
func (b *bidder) later(pause time.Duration) {
	b.round++
	b.idles = true
	b.in(pause, b.bid)
}

// in schedules the function f to run after the duration. The function does not run if the bidder
// has begun another round by then, or if its program is dead.
func (b *bidder) in(d time.Duration, f func()) {
	round, g := b.round, b.program
	b.pod.w.After(d, func() {
		g.WhenThawed(func() {
			if b.round == round && b.program == g {
				f()
			}
		})
	})
}

// idle draws the pause between two bids.
func idle(b *bidder) time.Duration {
	if b.pod.w.calm {
		return engine.Between(b.rng, 10*time.Millisecond, 2*time.Second)
	}
	return engine.Between(b.rng, 10*time.Millisecond, 30*time.Second)
}

// bid sends a bid for the claim, or joins a call for several claims. In quiet times, a bidder that
// is not due bids only if [readsOn] returns true.
func (b *bidder) bid() {
	w := b.pod.w
	if w.calm && !b.due && !readsOn(b) {
		b.later(engine.Between(b.rng, time.Second, 5*time.Second))
		return
	}
	if partners := partnersOf(b); len(partners) > 0 {
		join(b, partners)
		return
	}
	b.idles = false
	b.streams, b.every = engine.Chance(b.rng, .6), engine.Between(b.rng, 2*time.Second, 15*time.Second).Round(time.Millisecond)
	query := "?heartbeat=" + b.every.String()
	if b.streams {
		query = "?stream=true"
	}
	if w.calm || engine.Chance(b.rng, .8) {
		query += "&wait=" + engine.Between(b.rng, time.Second, 10*time.Minute).String()
	}
	query += drawRole(b)
	b.bids, b.since = true, w.Now()
	b.call = b.ask(http.MethodPost, "/holds"+query, b.told, b.endBid)
	if !w.calm && engine.Chance(b.rng, .1) { // the program gives up
		b.in(engine.Between(b.rng, time.Millisecond, 20*time.Second), func() {
			if b.bids {
				b.hangUp()
				b.later(idle(b))
			}
		})
	}
}

// ask sends a request about the claim.
func (b *bidder) ask(method, path string, took func(int, told), ended func(int)) *call {
	c := &call{program: b.program, rng: b.rng}
	round := b.round
	c.took = func(code int, t told) {
		if b.round == round {
			took(code, t)
		}
	}
	c.ended = func(code int) {
		if b.round == round {
			ended(code)
		}
	}
	c.begin(method, "/v1/"+b.claim.Kind.Word+"/"+b.claim.Name+path)
	return c
}

// endBid reacts to the end of the answer to a bid. The answer was a stream, a refusal, or a hold
// with heartbeats.
func (b *bidder) endBid(int) {
	b.bids, b.call = false, nil
	switch {
	case b.hold == nil:
		b.later(idle(b))
	case b.streams && engine.Chance(b.rng, .5):
		b.in(engine.Between(b.rng, time.Millisecond, time.Second), b.follow)
	case !b.streams:
		b.beat()
	}
}

// endFollowing reacts to the end of the stream that [bidder.follow] opened.
func (b *bidder) endFollowing(code int) {
	b.call = nil
	if code == http.StatusGone {
		b.obey("is told that the hold is gone")
	}
}

// beat sends heartbeats until the hold is over.
func (b *bidder) beat() {
	pause := time.Duration(float64(b.every) * (.2 + .7*b.rng.Float64()))
	if !b.pod.w.calm && engine.Chance(b.rng, .03) {
		pause = 3 * b.every // the program is late
	}
	b.in(pause, func() {
		if b.hold == nil {
			return
		}
		b.ask(http.MethodPut, "/holds/"+b.hold.Hold, b.told, func(code int) {
			if code == http.StatusGone {
				b.obey("is told that the hold is gone")
			}
		})
		b.beat()
	})
}

// hangUp closes the connection of the bid.
func (b *bidder) hangUp() {
	b.call.hangUp()
	b.call, b.bids = nil, false
	if b.joint != nil {
		b.joint.part(b)
	}
}

// disconnect closes the connection of the bid, or of the hold. A program with a hold continues
// its work, and may open another call about the hold after the pause.
func (b *bidder) disconnect(pause time.Duration) {
	b.hangUp()
	b.pod.w.Note(b.name, "closes its connection")
	if b.hold == nil {
		b.later(idle(b))
		return
	}
	if engine.Chance(b.rng, .5) {
		b.in(pause, b.follow)
	}
}

// follow opens a connection about the hold that the program has.
func (b *bidder) follow() {
	if b.hold != nil && b.call == nil {
		b.call = b.ask(http.MethodGet, "/holds/"+b.hold.Hold, b.told, b.endFollowing)
	}
}

// drawRole draws whether the bidder of a read-write lock reads or writes next, and returns the
// query for that role. For any other claim the result is empty.
func drawRole(b *bidder) string {
	if b.claim.Kind != api.RWLock {
		return ""
	}
	if b.writes = !readsOn(b) && engine.Chance(b.rng, .4); b.writes {
		return "&as=writer"
	}
	return "&as=reader"
}

// readsOn reports whether the bidder bids again as a reader, after its first hold of the quiet
// times. The bidder does so while any writer waits for its own first hold. So the story shows that
// readers starve no writer.
func readsOn(b *bidder) bool {
	w := b.pod.w
	return b.claim.Kind == api.RWLock && w.calm && !w.silent && !b.due && slices.ContainsFunc(w.locals, func(p *localPod) bool {
		return slices.ContainsFunc(p.bidders, func(o *bidder) bool { return o.due && o.bids && o.writes })
	})
}
