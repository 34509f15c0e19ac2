// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// joint is one call of a program for several claims. Each claim has a bidder. Only the field Call
// of the first bidder refers to the HTTP request.
type joint struct {
	// Bidders are the parts of the program that bid together.
	Bidders []*Bidder
	// rounds has the round in which each bidder joined the call. In a later round of a bidder, an
	// answer to this call changes nothing for that bidder.
	rounds []int
}

// partnersOf draws idle bidders of other claims in the pod, as partners for a joint call. If the
// bidder has to call alone, the result is empty.
func partnersOf(b *Bidder) (all []*Bidder) {
	if !b.Pod.w.Joins || !engine.Chance(b.rng, .6) {
		return nil
	}
	for _, o := range b.Pod.Bidders {
		other := func(p *Bidder) bool { return p.Claim == o.Claim }
		if o.Claim != b.Claim && o.idles && (!b.Pod.w.Calm || o.Due) && !slices.ContainsFunc(all, other) && engine.Chance(b.rng, .7) {
			all = append(all, o)
		}
	}
	return all
}

// join sends one call for the claims of the bidder and of its partners. If the call succeeds,
// each bidder has a hold of its own.
func join(b *Bidder, partners []*Bidder) {
	w := b.Pod.w
	j := &joint{Bidders: append([]*Bidder{b}, partners...)}
	every := engine.Between(b.rng, 2*time.Second, 15*time.Second).Round(time.Millisecond)
	var claims []string
	query := []string{"&heartbeat=" + every.String()}
	if w.Calm || engine.Chance(b.rng, .8) {
		query = append(query, "&wait="+engine.Between(b.rng, time.Second, 5*time.Minute).String())
	}
	for _, m := range j.Bidders {
		m.round++
		m.Joint, m.idles, m.Bids, m.Since, m.streams, m.every = j, false, true, w.Now(), false, every
		j.rounds = append(j.rounds, m.round)
		claims = append(claims, m.Claim.Kind.Word+"/"+m.Claim.Name)
		query = append(query, drawRole(m))
	}
	b.Call = &call{program: b.Program, rng: b.rng, took: j.took, ended: j.ended}
	b.Call.begin(http.MethodPost, "/v1/holds?claims="+strings.Join(claims, ",")+strings.Join(query, ""))
	if !w.Calm && engine.Chance(b.rng, .1) { // the program gives up
		b.in(engine.Between(b.rng, time.Millisecond, 20*time.Second), func() {
			if b.Joint == j {
				b.Disconnect(0)
			}
		})
	}
}

// open reports whether the bidder with the index i still takes part in the call.
func (j *joint) open(i int) bool { return j.Bidders[i].Joint == j && j.Bidders[i].round == j.rounds[i] }

// took gives each bidder the answer's line about the claim of that bidder.
func (j *joint) took(code int, t told) {
	for _, line := range t.Holds {
		for i, b := range j.Bidders {
			if j.open(i) && b.Claim.LocalText() == line.Claim {
				b.told(code, line)
			}
		}
	}
}

// ended reacts to the end of the agent's answer to the joint call. From then on, each bidder with a
// hold sends heartbeats.
func (j *joint) ended(int) {
	for i, b := range j.Bidders {
		if !j.open(i) {
			continue
		}
		b.Joint, b.Bids, b.Call = nil, false, nil
		if b.Hold == nil {
			b.later(idle(b))
		} else {
			b.beat()
		}
	}
}

// part takes a bidder out of the call. The first bidder has the connection. So if that bidder is
// taken out, the call ends, and all other bidders bid anew.
func (j *joint) part(by *Bidder) {
	if by != j.Bidders[0] {
		by.Joint = nil
		return
	}
	for i, b := range j.Bidders {
		if !j.open(i) {
			continue
		}
		b.Joint, b.Bids = nil, false
		if i > 0 {
			b.later(idle(b))
		}
	}
}
