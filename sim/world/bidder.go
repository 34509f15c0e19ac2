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

// Bidder is the part of a program that bids for one claim. A bidder bids, and works under its hold
// until the instant that the last answer names. Then the bidder gives the hold back, and begins
// anew.
type Bidder struct {
	// Pod is the pod of the program.
	Pod *LocalPod
	// Claim is the claim for which the bidder bids.
	Claim api.Claim
	// Name is the name of the bidder in the history of events.
	Name string
	rng  *rand.Rand
	// Program is the last process of the program.
	Program *program
	// round counts the bids, so that late events of an earlier bid change nothing.
	round int
	// Bids reports that a bid waits for its answer. The field Since is the instant at which the
	// program sent that bid.
	Bids  bool
	Since time.Duration
	Call  *call // the open call about the bid or the hold; nil for none
	// streams reports that the call of the bid stays open, which shows the agent that the program
	// lives. Otherwise the program sends heartbeats, and the field "every" is the promised longest
	// time between two heartbeats.
	streams bool
	every   time.Duration
	// Hold is the agent's last answer about the hold; nil for none. The field "until" is the
	// instant, on the node's clock, by which the program needs another answer.
	Hold  *told
	until time.Duration
	work  *work
	// Writes reports that the bidder, as a writer, bids for a read-write lock or holds that lock.
	Writes bool
	// Due reports that the bidder has not held yet in the present quiet times. Such a bidder must
	// still hold once.
	Due bool
	// idles reports that the bidder waits before its next bid. The field Joint is the open call for
	// several claims in which the bidder takes part; nil for none.
	idles bool
	Joint *joint
}

func newBidder(p *LocalPod, c api.Claim) *Bidder {
	name := fmt.Sprintf("%s/%s-%d", p.Name, c.Kind.Word, len(p.Bidders))
	return &Bidder{Pod: p, Claim: c, Name: name, rng: p.w.Source(name)}
}

// begin makes the bidder a part of a new program, which bids a little later.
func (b *Bidder) begin(g *program) {
	b.Program, b.Bids, b.Hold, b.Call, b.work, b.Joint = g, false, nil, nil, nil, nil
	b.later(engine.Between(b.rng, time.Millisecond, 2*time.Second))
}

// later makes the bidder bid after the time in the argument "pause".
func (b *Bidder) later(pause time.Duration) {
	b.round++
	b.idles = true
	b.in(pause, b.bid)
}

// in schedules the function "f" to run after the duration. The function does not run if the
// bidder has begun another round by then, or if its program is dead.
func (b *Bidder) in(d time.Duration, f func()) {
	round, g := b.round, b.Program
	b.Pod.w.After(d, func() {
		g.WhenThawed(func() {
			if b.round == round && b.Program == g {
				f()
			}
		})
	})
}

// idle draws the time between two bids.
func idle(b *Bidder) time.Duration {
	if b.Pod.w.Calm {
		return engine.Between(b.rng, 10*time.Millisecond, 2*time.Second)
	}
	return engine.Between(b.rng, 10*time.Millisecond, 30*time.Second)
}

// bid sends a bid for the claim, or joins a call for several claims. A bidder that has already
// held once in the present quiet times bids only if [readsOn] returns true.
func (b *Bidder) bid() {
	w := b.Pod.w
	if w.Calm && !b.Due && !readsOn(b) {
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
	if w.Calm || engine.Chance(b.rng, .8) {
		query += "&wait=" + engine.Between(b.rng, time.Second, 10*time.Minute).String()
	}
	query += drawRole(b)
	b.Bids, b.Since = true, w.Now()
	b.Call = b.ask(http.MethodPost, "/holds"+query, b.told, b.endBid)
	if !w.Calm && engine.Chance(b.rng, .1) { // the program gives up
		b.in(engine.Between(b.rng, time.Millisecond, 20*time.Second), func() {
			if b.Bids {
				b.hangUp()
				b.later(idle(b))
			}
		})
	}
}

// ask sends a request about the claim.
func (b *Bidder) ask(method, path string, took func(int, told), ended func(int)) *call {
	c := &call{program: b.Program, rng: b.rng}
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
	c.begin(method, "/v1/"+b.Claim.Kind.Word+"/"+b.Claim.Name+path)
	return c
}

// endBid reacts to the end of the answer to a bid. The answer was a stream, a refusal, or a hold
// with heartbeats.
func (b *Bidder) endBid(int) {
	b.Bids, b.Call = false, nil
	switch {
	case b.Hold == nil:
		b.later(idle(b))
	case b.streams && engine.Chance(b.rng, .5):
		b.in(engine.Between(b.rng, time.Millisecond, time.Second), b.follow)
	case !b.streams:
		b.beat()
	}
}

// endFollowing reacts to the end of the stream that [Bidder.follow] opened.
func (b *Bidder) endFollowing(code int) {
	b.Call = nil
	if code == http.StatusGone {
		b.obey("is told that the hold is gone")
	}
}

// beat sends heartbeats until the hold is over.
func (b *Bidder) beat() {
	pause := time.Duration(float64(b.every) * (.2 + .7*b.rng.Float64()))
	if !b.Pod.w.Calm && engine.Chance(b.rng, .03) {
		pause = 3 * b.every // the program is late
	}
	b.in(pause, func() {
		if b.Hold == nil {
			return
		}
		b.ask(http.MethodPut, "/holds/"+b.Hold.Hold, b.told, func(code int) {
			if code == http.StatusGone {
				b.obey("is told that the hold is gone")
			}
		})
		b.beat()
	})
}

// hangUp closes the connection of the bid.
func (b *Bidder) hangUp() {
	b.Call.hangUp()
	b.Call, b.Bids = nil, false
	if b.Joint != nil {
		b.Joint.part(b)
	}
}

// Disconnect closes the connection of the bid, or of the hold. A program with a hold continues
// its work, and may open another call about the hold after the time in the argument "pause".
func (b *Bidder) Disconnect(pause time.Duration) {
	b.hangUp()
	b.Pod.w.Note(b.Name, "closes its connection")
	if b.Hold == nil {
		b.later(idle(b))
		return
	}
	if engine.Chance(b.rng, .5) {
		b.in(pause, b.follow)
	}
}

// follow requests a stream of news about the program's hold from the local API.
func (b *Bidder) follow() {
	if b.Hold != nil && b.Call == nil {
		b.Call = b.ask(http.MethodGet, "/holds/"+b.Hold.Hold, b.told, b.endFollowing)
	}
}

// drawRole draws whether the bidder of a read-write lock reads or writes next, and returns the
// query for that role. For any other claim the result is empty.
func drawRole(b *Bidder) string {
	if b.Claim.Kind != api.RWLock {
		return ""
	}
	if b.Writes = !readsOn(b) && engine.Chance(b.rng, .4); b.Writes {
		return "&as=writer"
	}
	return "&as=reader"
}

// readsOn reports whether a bidder that has already held in the present quiet times
// ([World.Calm]) bids again, as a reader. The result is true while any writer waits for its own
// first hold of these times. So the story of readers shows that readers starve no writer. Once
// the programs fall silent ([World.Silent]), the result is false.
func readsOn(b *Bidder) bool {
	w := b.Pod.w
	return b.Claim.Kind == api.RWLock && w.Calm && !w.Silent && !b.Due && slices.ContainsFunc(w.Locals, func(p *LocalPod) bool {
		return slices.ContainsFunc(p.Bidders, func(o *Bidder) bool { return o.Due && o.Bids && o.Writes })
	})
}
