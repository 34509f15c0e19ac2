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

// joint is one call of a program for several claims. Each claim has a bidder. Only the field "call"
// of the first bidder refers to the HTTP request.
type joint struct {
	bidders []*bidder
	// rounds has the round of each bidder, so that a late answer changes nothing.
	rounds []int
}

// partnersOf draws idle bidders of other claims in the pod, as partners for a joint call. If the
// bidder has to call alone, the result is empty.
func partnersOf(b *bidder) (all []*bidder) {
	if !b.pod.w.joins || !engine.Chance(b.rng, .6) {
		return nil
	}
	for _, o := range b.pod.bidders {
		other := func(p *bidder) bool { return p.claim == o.claim }
		if o.claim != b.claim && o.idles && (!b.pod.w.calm || o.due) && !slices.ContainsFunc(all, other) && engine.Chance(b.rng, .7) {
			all = append(all, o)
		}
	}
	return all
}

// join sends one call for the claims of the bidder and of its partners. If the call succeeds,
// each bidder has a hold of its own.
func join(b *bidder, partners []*bidder) {
	w := b.pod.w
	j := &joint{bidders: append([]*bidder{b}, partners...)}
	every := engine.Between(b.rng, 2*time.Second, 15*time.Second).Round(time.Millisecond)
	var claims []string
	query := []string{"&heartbeat=" + every.String()}
	if w.calm || engine.Chance(b.rng, .8) {
		query = append(query, "&wait="+engine.Between(b.rng, time.Second, 5*time.Minute).String())
	}
	for _, m := range j.bidders {
		m.round++
		m.joint, m.idles, m.bids, m.since, m.streams, m.every = j, false, true, w.Now(), false, every
		j.rounds = append(j.rounds, m.round)
		claims = append(claims, m.claim.Kind.Word+"/"+m.claim.Name)
		query = append(query, drawRole(m))
	}
	b.call = &call{program: b.program, rng: b.rng, took: j.took, ended: j.ended}
	b.call.begin(http.MethodPost, "/v1/holds?claims="+strings.Join(claims, ",")+strings.Join(query, ""))
	if !w.calm && engine.Chance(b.rng, .1) { // the program gives up
		b.in(engine.Between(b.rng, time.Millisecond, 20*time.Second), func() {
			if b.joint == j {
				b.disconnect(0)
			}
		})
	}
}

// open reports whether the bidder with the index i still takes part in the call.
func (j *joint) open(i int) bool { return j.bidders[i].joint == j && j.bidders[i].round == j.rounds[i] }

// took hands each bidder the line about its claim.
func (j *joint) took(code int, t told) {
	for _, line := range t.Holds {
		for i, b := range j.bidders {
			if j.open(i) && b.claim.LocalText() == line.Claim {
				b.told(code, line)
			}
		}
	}
}

// ended reacts to the end of the answer. A bidder with a hold sends heartbeats from now on.
func (j *joint) ended(int) {
	for i, b := range j.bidders {
		if !j.open(i) {
			continue
		}
		b.joint, b.bids, b.call = nil, false, nil
		if b.hold == nil {
			b.later(idle(b))
		} else {
			b.beat()
		}
	}
}

// part takes a bidder out of the call. The first bidder has the connection. So if that bidder is
// taken out, the call ends, and all other bidders bid anew.
func (j *joint) part(by *bidder) {
	if by != j.bidders[0] {
		by.joint = nil
		return
	}
	for i, b := range j.bidders {
		if !j.open(i) {
			continue
		}
		b.joint, b.bids = nil, false
		if i > 0 {
			b.later(idle(b))
		}
	}
}

// checkJoint demands that an answer about several claims is good for no longer than its line about
// each claim.
func checkJoint(l *checks, a *localAgent, t told) {
	for _, line := range t.Holds {
		checkTold(l, a, line)
		if t.GoodUntil > line.GoodUntil {
			l.Violate(tooLong, "%s tells several holds until %v, and %s until %v", a.where, t.until(), line.Claim, line.until())
		}
	}
}
