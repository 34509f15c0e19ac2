// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"net/http"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// work is the uninterrupted activity of a bidder under one hold.
type work struct {
	bidder            *Bidder
	slot, hold, token string
	// slots are all slots of the hold; the hold of a writer has several slots. The token belongs to
	// the slot in the field "slot".
	slots []string
	// toldAt is the true instant at which the agent wrote the last answer.
	toldAt time.Duration
	// excused reports that the program stood still when the last answer ceased to be good.
	excused bool
}

// told reacts to a line of an answer of the local API about the program's hold. The line names the
// instant until which the program may work, and the program compares its clock with that instant.
// So a line that the program reads late does no harm.
func (b *Bidder) told(code int, t told) {
	if code >= http.StatusBadRequest || t.Hold == "" {
		return
	}
	b.Bids = false
	first := b.Hold == nil || b.Hold.Hold != t.Hold
	b.Hold, b.until = &t, t.until()
	b.Pod.w.Note(b.Name, "is told %s of %s for %v", t.State, t.Hold, t.good())
	switch t.State {
	case "lost":
		b.obey("is told that the hold is lost")
		return
	case "ending", "asked":
		if engine.Chance(b.rng, .7) {
			b.in(engine.Between(b.rng, time.Millisecond, 2*time.Second), b.done)
		}
	case "uncertain":
		if !b.Pod.Leashed {
			b.ends("stops, for the hold is uncertain")
		}
	}
	b.look()
	if first {
		b.in(lasts(b), b.done)
	}
	if b.until <= b.Pod.Node.Now() || t.State == "uncertain" {
		return
	}
	b.works(t)
	if !b.Pod.Leashed {
		b.watches(b.until)
	}
}

// lasts draws the time that the work takes.
func lasts(b *Bidder) time.Duration {
	if b.Pod.w.Calm {
		return engine.Between(b.rng, 10*time.Millisecond, MostWork)
	}
	return engine.Between(b.rng, 10*time.Millisecond, 90*time.Second)
}

// MostWork bounds the duration of the work under one hold in quiet times, which have no faults.
const MostWork = 3 * time.Second

// works lets the bidder begin its work, or go on with its work.
func (b *Bidder) works(t told) {
	if b.work != nil && b.work.hold == t.Hold {
		b.work.toldAt = t.at
		return
	}
	b.ends("has another hold")
	b.work = &work{bidder: b, slot: t.Slot, slots: t.slots(), hold: t.Hold, token: t.FencingToken, toldAt: t.at}
	workBegins(b.Pod.w.Checks, b.work)
}

// watches ends the work at the instant "until" of the node's clock, unless a later answer prolongs
// the work.
func (b *Bidder) watches(until time.Duration) {
	work, g := b.work, b.Program
	b.Pod.Node.Ring(until, func() {
		if b.work != work || b.until != until {
			return
		}
		work.excused = g.Frozen()
		g.WhenThawed(b.look)
	})
}

// look ends the work if the node's clock has reached the instant "until". A bidder without an
// open call then drops its hold. If shims kill the program (Leashed), look does nothing.
func (b *Bidder) look() {
	if b.Hold == nil || b.Pod.Node.Now() < b.until || b.Pod.Leashed {
		return
	}
	b.ends("ends, for its time has passed")
	if b.Call == nil {
		b.lose("gives its hold up")
	}
}

// ends stops the work of the bidder, if any.
func (b *Bidder) ends(how string) {
	if work := b.work; work != nil {
		b.work = nil
		workEnds(b.Pod.w.Checks, work, how)
	}
}

// lose makes the bidder drop its hold without giving the hold back. The bidder bids anew a while
// later.
func (b *Bidder) lose(how string) {
	b.Pod.w.Note(b.Name, "%s", how)
	b.ends("ends")
	b.Hold = nil
	b.hangUp()
	b.later(idle(b))
}

// obey drops the hold, because the agent has told the bidder that the hold is lost. A program of a
// pod with a shim works on, until the shim kills the program.
func (b *Bidder) obey(how string) {
	if !b.Pod.Leashed || b.work == nil {
		b.lose(how)
	}
}

// done ends the work, because nothing is left to do. Mostly the program gives the hold back.
func (b *Bidder) done() {
	if b.Hold == nil {
		return
	}
	number, calm := b.Hold.Hold, b.Pod.w.Calm
	b.ends("is done")
	switch {
	case !calm && engine.Chance(b.rng, .15): // the bidder drops the hold without giving it back
		b.lose("goes")
		return
	case !calm && engine.Chance(b.rng, .1): // the program keeps its hold and its connection for a while
		b.in(engine.Between(b.rng, time.Second, time.Minute), b.done)
		return
	}
	b.round++
	b.Hold = nil
	b.giveBack(number, 3)
}

// giveBack tells the agent that the hold is over. If the agent does not confirm that, giveBack
// repeats the request after a second. The argument "times" is the greatest number of attempts.
func (b *Bidder) giveBack(number string, times int) {
	b.ask(http.MethodDelete, "/holds/"+number, func(int, told) {}, func(code int) {
		if code != http.StatusNoContent && times > 1 {
			b.in(time.Second, func() { b.giveBack(number, times-1) })
			return
		}
		b.Due = b.Due && !b.Pod.w.Calm
		b.hangUp()
		b.later(idle(b))
	})
}
