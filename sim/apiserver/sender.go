// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// sender sends the requests of a client through the network.
type sender struct {
	*engine.Process
	net *Network
	// name selects the random sources of the client, and is the author of its writes.
	name    string
	path    path // nil for a process on the API server's own machine
	sources map[string]*rand.Rand
	// Allowed authorizes a request for a Lease: get, watch or update. The function is nil for
	// a process that is in no pod.
	Allowed func(verb, lease string) error
	// Waits reports that the process waits until conditions are met.
	Waits bool
	// Sent counts the requests by operation, including watches and Events.
	Sent map[string]int
	// recent has the requests of the last minute, by slot or operation.
	recent map[string]*minute
}

// path is the way between a client and the server.
type path interface {
	// Out reports whether the client's packets leave its machine. The method In reports whether the
	// server's packets reach the client.
	Out() bool
	In() bool
}

// source returns the random source of one kind of request. The requests of one process
// race, so each kind has a separate source.
func (c *sender) source(op string) *rand.Rand {
	r := c.sources[op]
	if r == nil {
		r = c.net.engine.Source(c.name + " " + op)
		c.sources[op] = r
	}
	return r
}

// out reports whether the client's packets reach the server. The method "in" reports
// whether the server's packets reach the client.
func (c *sender) out() bool { return !c.net.Away && (c.path == nil || c.path.Out()) }
func (c *sender) in() bool  { return !c.net.Away && (c.path == nil || c.path.In()) }

// Total returns the number of requests that the client has sent.
func (c *sender) Total() int {
	n := 0
	for _, sent := range c.Sent {
		n += sent
	}
	return n
}

// count notes a request of a process that runs in a pod. Within a minute, too many requests
// about one slot, or with one operation, violate [Chatter].
func (c *sender) count(op string) {
	if c.Allowed == nil {
		return
	}
	about, most := op, map[string]int{"patch": mostOfPod, "event": mostOfEvents}[op]
	if _, slot, ok := strings.Cut(op, " "); ok {
		about, most = slot, mostOfLease
		if c.Waits {
			most = mostOfWait
		}
	}
	m := c.recent[about]
	if m == nil {
		m = new(minute)
		c.recent[about] = m
	}
	if n := m.add(c.net.engine.Now()); n > most {
		c.net.engine.Violate(Chatter, "%s sent %d requests about %s within a minute, not %d: in all %v",
			c.name, n, about, most, c.Sent)
	}
}

// answer is the server's answer to a request.
type answer struct {
	raw []byte
	err error
}

// Do sends one request. The effect happens when the request arrives at the server. A
// fault may lose the request or its answer.
func (c *sender) Do(ctx context.Context, op string, effect func() ([]byte, error)) ([]byte, error) {
	if !c.Enter() {
		return nil, engine.ErrDead
	}
	r, f := c.source(op), c.net.Weather
	effect = c.strangely(op, f, effect)
	c.Sent[op]++
	c.count(op)
	reply := make(chan answer, 1)
	tell := func(a answer, after time.Duration) {
		c.net.engine.After(after, func() {
			if c.in() {
				reply <- a
			} else {
				c.net.engine.After(engine.Between(r, 0, noticed), func() { reply <- answer{err: ErrBroken} })
			}
		})
	}
	lost, late, refused, replyLost := engine.Chance(r, f.lost), engine.Chance(r, f.late), engine.Chance(r, f.refused), engine.Chance(r, f.replyLost)
	there, back := trip(r, f), trip(r, f)+c.net.Lag
	if strings.HasPrefix(op, "put ") {
		replyLost = replyLost || f.Unanswered
	} else if f.Unanswered {
		lost = true
	}
	abrupt, code, before := engine.Chance(r, .5), r.IntN(len(refusals)), engine.Chance(r, .5)
	if late {
		there += engine.Between(r, time.Second, c.net.Latest)
	} else if strings.HasPrefix(op, "put ") {
		there += c.net.Store
	}
	broken := c.broken(op)
	lost = lost || broken == Unheard
	// A request without an answer fails immediately, or hangs until its deadline. A watch has no
	// deadline, but its client notices that the network is cut.
	silence := func() {
		if watching := strings.HasPrefix(op, "watch "); watching || abrupt {
			pause := back
			if watching {
				pause += engine.Between(r, 0, noticed)
			}
			c.net.engine.After(pause, func() { reply <- answer{err: ErrUnreachable} })
		}
	}
	c.net.engine.After(there, func() {
		switch {
		case lost || !c.out():
			silence()
			return
		case refused && (before || refusals[code].code < 500):
			tell(answer{err: refusals[code].err()}, back)
			return
		case broken != sound:
			tell(answer{err: broken.err()}, back)
			return
		}
		raw, err := effect()
		switch {
		case replyLost || !c.in() || errors.Is(err, errDropped):
			silence()
		case refused:
			tell(answer{err: refusals[code].err()}, back)
		default:
			tell(answer{raw, err}, back+c.commit(op, err))
		}
	})
	tick := engine.Between(r, 1, time.Microsecond)
	c.Leave()
	return c.await(ctx, reply, tick)
}

// commit returns the time that etcd takes to store the write of a request, beyond the usual time. The
// argument "err" is the error of the request.
func (c *sender) commit(op string, err error) time.Duration {
	if err != nil || !strings.HasPrefix(op, "put ") {
		return 0
	}
	return c.net.Commit
}

// strangely adds the faults of proxies and broken servers to the effect of a request. These faults
// have separate random sources, so strange weather changes no draw of other faults.
func (c *sender) strangely(op string, f Weather, effect func() ([]byte, error)) func() ([]byte, error) {
	if c.Allowed == nil {
		return effect
	}
	r := c.source("strange " + op)
	odd, which := engine.Chance(r, f.odd), r.IntN(len(oddities))
	doubled, garbled := engine.Chance(r, f.doubled), engine.Chance(r, f.garbled)
	lease := strings.HasPrefix(op, "put ") && !strings.HasPrefix(op, "put variable.")
	return func() ([]byte, error) {
		if odd {
			return nil, oddities[which].err()
		}
		raw, err := effect()
		if doubled && lease && err == nil {
			raw, err = effect()
		}
		if garbled && err == nil {
			return nil, kube.ErrMalformed
		}
		return raw, err
	}
}

// await waits for the reply. If ctx ends first, the method waits for the short random time "tick",
// and then returns the error of ctx. Without that time, two requests of one instant would also time
// out in one instant. Their order would differ between two replays of a seed.
func (c *sender) await(ctx context.Context, reply <-chan answer, tick time.Duration) ([]byte, error) {
	var a answer
	select {
	case a = <-reply:
	case <-ctx.Done():
		<-time.After(tick)
		a.err = ctx.Err()
	}
	if !c.Enter() {
		return nil, engine.ErrDead
	}
	c.Leave()
	return a.raw, a.err
}

// broken returns the fault that the request of an agent, or of a pod that waits, has in the
// current weather.
func (c *sender) broken(op string) Fault {
	verb, lease, _ := strings.Cut(op, " ")
	switch f := c.net.Weather; {
	case c.Allowed == nil:
		return sound
	case lease != "" && lease == f.Sealed:
		return Forbidden
	case verb == "get":
		return f.Gets
	case verb == "put":
		return f.Puts
	case verb == "watch" && f.Watches != Empty:
		return f.Watches
	case verb == "patch":
		return f.Patches
	}
	return sound
}

// may returns nil if the client has the right to send a request for the Lease. Otherwise the method
// returns the error with which the API server refuses the request.
func (c *sender) may(verb, lease string) error {
	if c.Allowed == nil {
		return nil
	}
	return c.Allowed(verb, lease)
}
