// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// adder is the part of a program that uses the Variables of its pod. An add is a request that adds
// a number to a Variable. An add with an idempotency key counts once, however often the program
// sends the request. The adder keeps such an add in the field "note", as on a disk that outlives
// the process. The adder repeats that add until the agent answers.
type adder struct {
	pod     *LocalPod
	name    string
	rng     *rand.Rand
	program *program
	// Note is the add that has an idempotency key, and no answer yet; nil for none.
	Note *note
	adds int
	// holds has the agent's answers about the last holds of the pod's programs. The method "write"
	// takes its fence from these answers.
	holds []told
	// calls are the calls that the present program has begun.
	calls []*call
}

// note is an add with an idempotency key.
type note struct {
	key string
	by  int64
}

func newAdder(p *LocalPod) *adder {
	name := p.Name + "/adder"
	return &adder{pod: p, name: name, rng: p.w.Source(name)}
}

// begin makes the adder a part of a new program.
func (a *adder) begin(g *program) {
	a.program, a.calls = g, nil
	a.later(a.keyed)
	a.later(a.hits)
	a.later(a.write)
	if engine.Chance(a.rng, .3) {
		a.later(a.watch)
	}
}

// die ends the adder because its program dies. The kernel closes the program's connections.
func (a *adder) die() {
	for _, c := range a.calls {
		c.hangUp()
	}
	a.program, a.calls = nil, nil
}

// later calls f after a random time, unless the program is dead by then, or no program may send
// requests any more.
func (a *adder) later(f func()) {
	g := a.program
	a.pod.w.After(engine.Between(a.rng, 50*time.Millisecond, 20*time.Second), func() {
		g.WhenThawed(func() {
			if a.program == g && !a.pod.w.Silent {
				f()
			}
		})
	})
}

// ask sends a request. When the answer has ended, the method calls the function "took" with the
// HTTP status and the last line. After a broken connection the status is zero.
func (a *adder) ask(method, path, key string, took func(code int, t told)) {
	c := &call{program: a.program, rng: a.rng, key: key}
	var last told
	c.took = func(_ int, t told) { last = t }
	c.ended = func(code int) { took(code, last) }
	a.calls = append(a.calls, c)
	c.begin(method, path)
}

// keyed sends an add with an idempotency key. The program repeats that add until the agent answers.
// In quiet times the method begins no new add.
func (a *adder) keyed() {
	l := a.pod.w.ledgers["keyed"]
	if a.Note == nil {
		if a.pod.w.Calm {
			a.later(a.keyed)
			return
		}
		a.adds++
		a.Note = &note{key: fmt.Sprintf("%s-%d", a.name, a.adds), by: 1 + int64(a.rng.IntN(9))}
		l.open += a.Note.by
	}
	n := a.Note
	a.ask(http.MethodPost, fmt.Sprintf("/v1/variable/keyed/add?by=%d", n.by), n.key, func(code int, t told) {
		if code == http.StatusOK && a.Note == n {
			l.acks(a.name, n.by, t.Value)
			a.Note = nil
		}
		a.later(a.keyed)
	})
}

// hits sends an add without an idempotency key, and never repeats that add. In quiet times the
// method sends nothing.
func (a *adder) hits() {
	if a.pod.w.Calm {
		a.later(a.hits)
		return
	}
	l, by := a.pod.w.ledgers["hits"], 1+int64(a.rng.IntN(9))
	l.open += by
	a.ask(http.MethodPost, fmt.Sprintf("/v1/variable/hits/add?by=%d", by), "", func(code int, t told) {
		switch code {
		case http.StatusOK:
			l.acks(a.name, by, t.Value)
		case 0, http.StatusGatewayTimeout:
		default: // any other status: the agent has written nothing
			l.open -= by
			l.check()
		}
		a.later(a.hits)
	})
}

// write sets the Variable "fenced" with a hold as the fence. The hold may have ended long ago. In
// quiet times the method sends nothing.
func (a *adder) write() {
	for _, b := range a.pod.Bidders {
		if b.Claim.Kind == api.Lock && b.Hold != nil && b.Hold.Hold != "" {
			a.holds = append(a.holds, *b.Hold)
		}
	}
	if len(a.holds) == 0 || a.pod.w.Calm {
		a.later(a.write)
		return
	}
	a.holds = a.holds[max(0, len(a.holds)-5):]
	of := engine.Pick(a.rng, a.holds)
	if engine.Chance(a.rng, .7) {
		of = a.holds[len(a.holds)-1]
	}
	l := a.pod.w.ledgers["fenced"]
	token, _ := strconv.ParseInt(of.FencingToken, 10, 64)
	l.holds[a.pod.uid] = append(l.holds[a.pod.uid], apiserver.Fence{Lock: of.Slot, Epoch: api.FirstEpoch, Token: token})
	a.ask(http.MethodPut, "/v1/variable/fenced?type=text&fence="+of.Hold, "", func(int, told) { a.later(a.write) })
}

// watch follows the Variable "keyed", and demands that the sum never falls, because no program
// subtracts.
func (a *adder) watch() {
	sum := int64(0)
	c := &call{program: a.program, rng: a.rng}
	c.took = func(_ int, t told) {
		n, err := strconv.ParseInt(t.Value, 10, 64)
		if err == nil && n < sum {
			a.pod.w.Violate(Counted, "%s sees %d after %d", a.name, n, sum)
		}
		sum = max(sum, n)
	}
	c.ended = func(int) { a.later(a.watch) }
	a.calls = append(a.calls, c)
	c.begin(http.MethodGet, "/v1/variable/keyed?watch=true")
	g := a.program
	a.pod.w.After(engine.Between(a.rng, time.Second, time.Minute), func() {
		if a.program == g && !c.over {
			c.hangUp()
			a.later(a.watch)
		}
	})
}
