// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Client is the client of the API server in one process.
type Client struct {
	sender
	server *Server
	// Patched stores a patch of the status of the client's own pod. The function returns the pod as
	// JSON. The function is nil for a process other than the agent.
	Patched func(patch []byte) ([]byte, error)
}

// NewClient returns the client of a process. The name selects the random sources of the client, and
// is the author of its writes. The argument "by" is nil for a process on the API server's own
// machine.
func (s *Server) NewClient(p *engine.Process, name string, by path) *Client {
	return &Client{server: s, sender: sender{
		Process: p, net: &s.Network, name: name, path: by,
		sources: map[string]*rand.Rand{}, Sent: map[string]int{}, recent: map[string]*minute{},
	}}
}

// send sends one request, through the weather or as the test's script says.
func (c *Client) send(ctx context.Context, r Request, effect func() ([]byte, error)) ([]byte, error) {
	if s := c.server.script; s != nil {
		r.By = c.name
		return s.send(ctx, r, effect)
	}
	return c.Do(ctx, r.op(), effect)
}

// agentsLease decodes the JSON of a Lease as the agent does.
func agentsLease(raw []byte) *kube.Lease {
	l := new(kube.Lease)
	engine.Must(l.UnmarshalJSON(raw))
	return l
}

// GetLease implements agent.API.
func (c *Client) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	raw, err := c.send(ctx, Request{Verb: "get", Name: name}, func() ([]byte, error) {
		if err := c.may("get", name); err != nil {
			return nil, err
		}
		return c.server.Get("Lease", name)
	})
	if err != nil {
		return nil, err
	}
	return agentsLease(raw), nil
}

// UpdateLease implements agent.API. Like agent/kube, the method returns kube.ErrUnchanged if the
// answer has the old resourceVersion.
func (c *Client) UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error) {
	body, err := lease.MarshalJSON()
	engine.Must(err)
	sent := c.net.engine.Now()
	raw, err := c.send(ctx, Request{Verb: "put", Name: lease.Name, Lease: lease}, func() ([]byte, error) {
		if err := c.may("update", lease.Name); err != nil {
			return nil, err
		}
		switch f := c.net.Weather; {
		case f.Deaf == lease.Name:
			return nil, Status(403, "Forbidden", lease.Name)
		case f.Unstored && lease.ResourceVersion == text(c.server.Object("Lease", lease.Name).Last().RV):
			return nil, errDropped // this fault loses only a write that the server would store
		}
		c.server.sent = sent
		return c.server.Put(c.name, "Lease", lease.Name, body)
	})
	if err != nil {
		return nil, err
	}
	stored := agentsLease(raw)
	if stored.ResourceVersion == lease.ResourceVersion {
		return nil, kube.ErrUnchanged
	}
	return stored, nil
}

// PatchPodStatus implements agent.API.
func (c *Client) PatchPodStatus(ctx context.Context, _ string, patch []byte) (kube.Pod, error) {
	return c.patch(ctx, "patch", patch)
}

// ReadDeletion implements agent.API. The agent may patch and read its pod at the same time. So
// ReadDeletion and PatchPodStatus send different kinds of requests, which have separate random
// sources.
func (c *Client) ReadDeletion(ctx context.Context, pod string) (kube.Pod, error) {
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
func (c *Client) CreateEvent(ctx context.Context, e kube.Event) error {
	_, err := c.send(ctx, Request{Verb: "event", Event: e}, func() ([]byte, error) { return nil, nil })
	return err
}

// WatchLease implements agent.API.
func (c *Client) WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error {
	s := &Watch{c: &c.sender, name: name, scripted: c.server.script != nil, wake: make(chan struct{}, 1)}
	defer c.close(s)
	_, err := c.send(ctx, Request{Verb: "watch", Name: name, Version: resourceVersion}, func() ([]byte, error) {
		if err := c.may("watch", name); err != nil {
			return nil, err
		}
		return nil, c.server.open(s, resourceVersion)
	})
	if err != nil {
		return err
	}
	if script := c.server.script; script != nil && script.Ends > 0 {
		c.net.engine.After(script.Ends, func() { s.finish(nil) })
	}
	for {
		if !c.Enter() {
			return engine.ErrDead
		}
		arrived, ended, err := s.arrived, s.Ended, s.err
		s.arrived = nil
		c.Leave()
		for _, e := range arrived {
			fn(e.event())
		}
		if ended {
			return err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close removes the stream of a watch that the client no longer reads.
func (c *Client) close(s *Watch) {
	c.net.engine.Lock()
	defer c.net.engine.Unlock()
	s.Ended = true
	c.server.Watches.remove(s)
}

// Watches returns the client's watches that the server has. A nil client has none.
func (c *Client) Watches() []*Watch {
	if c == nil {
		return nil
	}
	return c.server.Watches.of(&c.sender)
}

// Muted reports whether the client has a watch that carries no event any more.
func (c *Client) Muted() bool {
	return slices.ContainsFunc(c.Watches(), func(w *Watch) bool { return w.Mute })
}

// GetVariable implements variable.Requests.
func (c *Client) GetVariable(ctx context.Context, name string) (*kube.Variable, error) {
	var read *kube.Variable
	_, err := c.send(ctx, Request{Verb: "get", Name: "variable." + name}, func() ([]byte, error) {
		if read = c.server.Variables.get(name); read == nil {
			return nil, Status(404, "NotFound", name)
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return read, nil
}

// UpdateVariable implements variable.Requests. The fault [Weather.repeated] draws from a separate
// random source, so that this fault changes no draw of the other faults.
func (c *Client) UpdateVariable(ctx context.Context, next *kube.Variable) (*kube.Variable, error) {
	next = next.Clone()
	var stored *kube.Variable
	_, err := c.send(ctx, Request{Verb: "put", Name: "variable." + next.Name, Variable: next}, func() (_ []byte, err error) {
		if c.net.Weather.Unstored && next.ResourceVersion == c.server.Variables.of[next.Name].ResourceVersion {
			return nil, errDropped // this fault loses only a write that the server would store
		}
		stored, err = c.server.Variables.put(next)
		if f := c.net.Weather; err == nil && f.repeated > 0 && engine.Chance(c.source("repeated variable."+next.Name), f.repeated) {
			c.server.Variables.Repeated[next.Name] = next.Write
			_, err = c.server.Variables.put(next)
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// WatchVariable implements variable.Requests. Each watch ends after a while.
func (c *Client) WatchVariable(ctx context.Context, name, from string, fn func(v *kube.Variable, gone bool)) error {
	_, err := c.send(ctx, Request{Verb: "watch", Name: "variable." + name, Version: from}, func() ([]byte, error) { return nil, nil })
	if err != nil {
		return err
	}
	if !c.Enter() {
		return engine.ErrDead
	}
	var timer <-chan time.Time
	if c.server.script == nil {
		timer = time.After(engine.Between(c.source("watches"), time.Millisecond, time.Minute))
	}
	c.Leave()
	for {
		if !c.Enter() {
			return engine.ErrDead
		}
		now, gone, changed := c.server.Variables.get(name), c.server.Variables.gone[name], c.server.Variables.changed
		c.Leave()
		if now == nil {
			fn(gone, true)
			return nil
		}
		if now.ResourceVersion != from {
			from = now.ResourceVersion
			fn(now, false)
		}
		select {
		case <-changed:
		case <-timer:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
