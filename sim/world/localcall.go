// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// call is one HTTP request of a program to the agent of its pod. The call implements
// http.ResponseWriter in the agent's process.
type call struct {
	program *program
	agent   *LocalAgent
	rng     *rand.Rand
	ctx     context.Context
	cancel  context.CancelFunc
	header  http.Header
	code    int
	// arrives is the instant at which the part of the answer that the agent wrote last reaches
	// the program.
	arrives time.Duration
	// key is the idempotency key of the request; empty for none.
	key string
	// over reports that the program has closed the connection, or has seen the end of the answer.
	over bool
	// took is called with each line of the answer. At the end of the answer, the function "ended"
	// is called with the HTTP status, or with zero if the connection broke.
	took  func(code int, t told)
	ended func(code int)
}

// told is one line of an answer. The field "at" is the true instant at which the agent wrote the
// line.
type told struct {
	Claim, Hold, Slot, FencingToken, State, Reason string
	As                                             string
	Value                                          string
	GoodForSeconds, GoodUntil                      float64
	// Holds has one line for each claim, in an answer about several claims.
	Holds []told
	at    time.Duration
}

// good returns the time for which, according to the line of the answer, the program may work.
// The time counts from the instant at which the agent wrote the line.
func (t told) good() time.Duration { return time.Duration(t.GoodForSeconds * float64(time.Second)) }

// until returns the instant, on the node's clock, until which the program may work according to
// the line.
func (t told) until() time.Duration { return time.Duration(t.GoodUntil * float64(time.Second)) }

// slots returns the slots of the hold that the line describes. A writer holds all slots of the
// lock.
func (t told) slots() []string {
	if t.As != "writer" {
		return []string{t.Slot}
	}
	name := strings.TrimPrefix(t.Slot[:strings.LastIndexByte(t.Slot, '.')], "rwlock.")
	return api.Claim{Kind: api.RWLock, Name: name}.Slots(api.Workload{})
}

// begin sends the request.
func (c *call) begin(method, path string) {
	w := c.program.pod.w
	c.ctx, c.cancel = context.WithCancel(w.Ctx)
	c.header, c.code = http.Header{}, http.StatusOK
	if a := c.program.pod.Agent; a != nil && !a.Dead && a.handler != nil {
		c.agent = a
		a.calls = append(a.calls, c)
	}
	r, err := http.NewRequestWithContext(c.ctx, method, "http://localhost"+path, http.NoBody)
	engine.Must(err)
	if c.key != "" {
		r.Header.Set("Idempotency-Key", c.key)
	}
	w.After(c.trip(), func() {
		switch {
		case c.over:
		case c.agent == nil || c.agent.Dead:
			c.breaks()
		default:
			w.Group.Go(func() {
				c.agent.handler.ServeHTTP(c, r)
				w.Do(c.closes)
			})
		}
	})
}

// trip draws the time for which the request, or a part of the answer, is under way.
func (c *call) trip() time.Duration { return engine.Between(c.rng, 50*time.Microsecond, instant) }

// Header, WriteHeader, Write and Flush implement http.ResponseWriter and http.Flusher.
func (c *call) Header() http.Header  { return c.header }
func (c *call) WriteHeader(code int) { c.code = code }
func (c *call) Flush()               {}

// Write sends one line. The write waits while the agent's process is frozen.
func (c *call) Write(line []byte) (int, error) {
	if !c.agent.Enter() {
		return 0, engine.ErrDead
	}
	w := c.program.pod.w
	defer c.agent.Leave()
	if c.over {
		return 0, apiserver.ErrBroken
	}
	var t told
	engine.Must(json.Unmarshal(line, &t))
	t.at = w.Now()
	for i := range t.Holds {
		t.Holds[i].at = t.at
	}
	if checkJoint(w.Checks, c.agent, t); len(t.Holds) == 0 {
		checkTold(w.Checks, c.agent, t)
	}
	code := c.code
	c.arrive(func() {
		c.program.WhenThawed(func() { c.hands(func() { c.took(code, t) }) })
	})
	return len(line), nil
}

// hands runs the function "f", unless the connection is closed. The function "f" gives the
// program a part of the answer.
func (c *call) hands(f func()) {
	if !c.over {
		f()
	}
}

// arrive calls f when the next part of the answer arrives.
func (c *call) arrive(f func()) {
	now := c.program.pod.w.Now()
	c.arrives = max(c.arrives+1, now+c.trip())
	c.program.pod.w.After(c.arrives-now, f)
}

// closes ends the answer after its last line.
func (c *call) closes() {
	if c.agent.Dead {
		return
	}
	c.drop()
	c.arrive(func() { c.program.WhenThawed(func() { c.finish(c.code) }) })
}

// breaks ends the connection, because the agent is dead or does not listen yet.
func (c *call) breaks() {
	c.drop()
	c.arrive(func() { c.program.WhenThawed(func() { c.finish(0) }) })
}

// finish calls the function "ended", at most once.
func (c *call) finish(code int) {
	if !c.over {
		c.over = true
		c.cancel()
		c.ended(code)
	}
}

// hangUp ends the connection on behalf of the program. The agent notices the end of the
// connection a little later.
func (c *call) hangUp() {
	if c == nil || c.over {
		return
	}
	c.over = true
	c.program.pod.w.After(c.trip(), c.cancel)
	c.drop()
}

// drop removes the call from the open calls of the agent.
func (c *call) drop() {
	if c.agent != nil {
		c.agent.calls = slices.DeleteFunc(c.agent.calls, func(other *call) bool { return other == c })
	}
}
