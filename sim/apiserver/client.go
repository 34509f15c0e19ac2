// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

var (
	// ErrUnreachable is the error of a connection that is refused.
	ErrUnreachable = errors.New("connection refused")
	// ErrBroken is the error of a connection that breaks.
	ErrBroken  = fmt.Errorf("connection: %w", syscall.ECONNRESET)
	errDropped = errors.New("lost on the way")
)

// Client is the client of the API server in one process.
type Client struct {
	*engine.Process
	server *Server
	// Name selects the random sources of the client, and is the author of its writes. An agent
	// changes the name before its first request, but after [Server.NewClient].
	Name string
	path path // nil for a process on the API server's own machine
	// Patched stores a patch of the status of the client's own pod. The function returns the pod as
	// JSON. The function is nil for a process other than the agent.
	Patched func(patch []byte) ([]byte, error)
	sources map[string]*rand.Rand
	// Allowed authorizes a request for a Lease: get, watch or update. The function is nil for
	// a process that is in no pod.
	Allowed func(verb, lease string) error
	// Waits reports that the process waits until conditions are met.
	Waits bool
	// Sent counts the requests by kind, including watches and Events.
	Sent map[string]int
	// recent has the requests of the last minute, by slot or kind.
	recent map[string]*minute
}

// path is the way between a client and the server.
type path interface {
	// Out reports whether the client's packets leave its machine. The method In reports whether the
	// server's packets reach the client.
	Out() bool
	In() bool
}

// NewClient returns the client of a process. The argument "by" is nil for a process on the API
// server's own machine.
func (s *Server) NewClient(p *engine.Process, name string, by path) *Client {
	return &Client{Process: p, server: s, Name: name, path: by, sources: map[string]*rand.Rand{}, Sent: map[string]int{}, recent: map[string]*minute{}}
}

// source returns the random source of one kind of request. The requests of one process
// race, so each kind has a separate source.
func (c *Client) source(op string) *rand.Rand {
	r := c.sources[op]
	if r == nil {
		r = c.server.engine.Source(c.Name + " " + op)
		c.sources[op] = r
	}
	return r
}

// out reports whether the client's packets reach the server. The method "in" reports
// whether the server's packets reach the client.
func (c *Client) out() bool { return !c.server.Away && (c.path == nil || c.path.Out()) }
func (c *Client) in() bool  { return !c.server.Away && (c.path == nil || c.path.In()) }

// Total returns the number of requests that the client has sent.
func (c *Client) Total() int {
	n := 0
	for _, sent := range c.Sent {
		n += sent
	}
	return n
}

// answer is the server's answer to a request.
type answer struct {
	raw []byte
	err error
}

// Do sends one request. The effect happens when the request arrives at the server. A
// fault may lose the request or its answer.
func (c *Client) Do(ctx context.Context, op string, effect func() ([]byte, error)) ([]byte, error) {
	if !c.Enter() {
		return nil, engine.ErrDead
	}
	r, f := c.source(op), c.server.Weather
	c.Sent[op]++
	c.count(op)
	reply := make(chan answer, 1)
	tell := func(a answer, after time.Duration) {
		c.server.engine.After(after, func() {
			if c.in() {
				reply <- a
			} else {
				c.server.engine.After(engine.Between(r, 0, noticed), func() { reply <- answer{err: ErrBroken} })
			}
		})
	}
	lost, late, refused, replyLost := engine.Chance(r, f.lost), engine.Chance(r, f.late), engine.Chance(r, f.refused), engine.Chance(r, f.replyLost)
	there, back := trip(r, f), trip(r, f)
	if strings.HasPrefix(op, "put ") {
		replyLost = replyLost || f.Unanswered
	} else if f.Unanswered {
		lost = true
	}
	abrupt, code, before := engine.Chance(r, .5), r.IntN(len(refusals)), engine.Chance(r, .5)
	if late {
		there += engine.Between(r, time.Second, c.server.Latest)
	}
	broken := c.broken(op)
	lost = lost || broken == Unheard
	// A request without an answer fails immediately, or hangs until its deadline. A watch has no
	// deadline, but its client notices that the path is cut.
	silence := func() {
		if watching := strings.HasPrefix(op, "watch "); watching || abrupt {
			pause := back
			if watching {
				pause += engine.Between(r, 0, noticed)
			}
			c.server.engine.After(pause, func() { reply <- answer{err: ErrUnreachable} })
		}
	}
	c.server.engine.After(there, func() {
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
			tell(answer{raw, err}, back)
		}
	})
	tick := engine.Between(r, 1, time.Microsecond)
	c.Leave()
	return c.await(ctx, reply, tick)
}

// await waits for the reply. If ctx ends first, await waits for the short random time "tick" more,
// and returns the error of ctx. Without that time, two requests of one instant would also time out
// in one instant. Their order would differ between two replays of a seed.
func (c *Client) await(ctx context.Context, reply <-chan answer, tick time.Duration) ([]byte, error) {
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

// latest is the default bound of a request's delay. With a lease of 30 s, a renewal with such a
// delay arrives after the drain has begun. All stories but "table" raise the bound to their longest
// lease duration, if that duration is longer.
const latest = 25 * time.Second

// trip draws the time of a packet's way in one direction.
func trip(r *rand.Rand, f Weather) time.Duration {
	d := engine.Between(r, 200*time.Microsecond, 4*time.Millisecond)
	if engine.Chance(r, f.Slow) {
		d += engine.Between(r, 0, time.Second)
	}
	return d
}

// noticed bounds the time in which a client notices that the path is cut. agent/kube
// promises 8 s.
const noticed = 8 * time.Second

// GetLease implements agent.API.
func (c *Client) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	raw, err := c.Do(ctx, "get "+name, func() ([]byte, error) {
		if err := c.may("get", name); err != nil {
			return nil, err
		}
		return c.server.Get("Lease", name)
	})
	if err != nil {
		return nil, err
	}
	return LeaseFrom(raw), nil
}

// UpdateLease implements agent.API. Like agent/kube, the method returns kube.ErrUnchanged if the
// answer has the old resourceVersion.
func (c *Client) UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error) {
	body, err := lease.MarshalJSON()
	engine.Must(err)
	sent := c.server.engine.Now()
	raw, err := c.Do(ctx, "put "+lease.Name, func() ([]byte, error) {
		if err := c.may("update", lease.Name); err != nil {
			return nil, err
		}
		switch f := c.server.Weather; {
		case f.Deaf == lease.Name:
			return nil, Status(403, "Forbidden", lease.Name)
		case f.Unstored && lease.ResourceVersion == text(c.server.Object("Lease", lease.Name).Last().RV):
			return nil, errDropped // only a write that the server would store is lost
		}
		c.server.sent = sent
		return c.server.Put(c.Name, "Lease", lease.Name, body)
	})
	if err != nil {
		return nil, err
	}
	stored := LeaseFrom(raw)
	if stored.ResourceVersion == lease.ResourceVersion {
		return nil, kube.ErrUnchanged
	}
	return stored, nil
}

// PatchPodStatus implements agent.API.
func (c *Client) PatchPodStatus(ctx context.Context, _ string, patch []byte) (kube.Pod, error) {
	return c.patch(ctx, "patch", patch)
}

// ReadPod implements agent.API. The agent may patch and read its pod at the same time. So
// ReadPod and PatchPodStatus send different kinds of requests, which have separate random
// sources.
func (c *Client) ReadPod(ctx context.Context, pod string) (kube.Pod, error) {
	return c.patch(ctx, "patch "+pod, []byte("{}"))
}

func (c *Client) patch(ctx context.Context, op string, patch []byte) (is kube.Pod, err error) {
	raw, err := c.Do(ctx, op, func() ([]byte, error) { return c.Patched(patch) })
	if code := (*kube.StatusError)(nil); errors.As(err, &code) && code.Code == 409 {
		err = fmt.Errorf("%w: %w", kube.ErrConflict, err)
	}
	if err == nil {
		engine.Must(json.Unmarshal(raw, &is))
	}
	return is, err
}

// CreateEvent implements agent.API. Only people read Events, so the world only counts them.
func (c *Client) CreateEvent(ctx context.Context, _ kube.Event) error {
	_, err := c.Do(ctx, "event", func() ([]byte, error) { return nil, nil })
	return err
}

// may returns nil if the client has the right to send a request for the Lease. Otherwise the method
// returns the error with which the API server refuses the request.
func (c *Client) may(verb, lease string) error {
	if c.Allowed == nil {
		return nil
	}
	return c.Allowed(verb, lease)
}

func text(version int64) string { return strconv.FormatInt(version, 10) }

func number(version string) int64 {
	n, err := strconv.ParseInt(version, 10, 64)
	engine.Must(err)
	return n
}
