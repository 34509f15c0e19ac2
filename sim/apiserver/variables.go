// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// variables are the Variables in the API server. Variables have a separate random source and
// separate versions. So they change nothing in a story without Variables.
type variables struct {
	rng *rand.Rand
	rv  int64
	of  map[string]*kube.Variable
	// stored is called at each stored write of a Variable.
	stored func(*kube.Variable)
	// changed is a channel. Each change of a Variable closes this channel and makes a new channel.
	changed chan struct{}
}

// KeepVariables gives the server Variables of the names. At each stored write of a Variable the
// server calls the function "stored".
func (s *Server) KeepVariables(names []string, stored func(*kube.Variable)) {
	v := &variables{
		rng: s.engine.Source("variables"), rv: 990, of: map[string]*kube.Variable{}, stored: stored, changed: make(chan struct{}),
	}
	for i, name := range names {
		v.rv++
		v.of[name] = &kube.Variable{Name: name, UID: "variable-" + strconv.Itoa(i), ResourceVersion: text(v.rv)}
	}
	s.variables = v
}

// Integer returns the integer of the named Variable.
func (s *Server) Integer(name string) int64 {
	if n := s.variables.of[name].Integer; n != nil {
		return *n
	}
	return 0
}

// put stores the Variable as the API server does. By the schema's rules, put refuses a write that
// removes the fence, names another lock, or has an older fence.
func (v *variables) put(next *kube.Variable) (*kube.Variable, error) {
	before := v.of[next.Name]
	if next.UID != before.UID || next.ResourceVersion != before.ResourceVersion {
		return nil, Status(409, "Conflict", "another resourceVersion")
	}
	if f := before.Fence; f != nil {
		switch n := next.Fence; {
		case n == nil || n.Lock != f.Lock, cmp.Or(cmp.Compare(n.Epoch, f.Epoch), cmp.Compare(n.Token, f.Token)) < 0:
			return nil, Status(422, "Invalid", "FencedOff")
		}
	}
	v.rv += 1 + int64(v.rng.IntN(3))
	stored := next.Clone()
	stored.ResourceVersion = text(v.rv)
	v.of[next.Name] = stored
	v.stored(stored)
	close(v.changed)
	v.changed = make(chan struct{})
	return stored.Clone(), nil
}

// GetVariable implements variable.Requests.
func (c *Client) GetVariable(ctx context.Context, name string) (*kube.Variable, error) {
	var read *kube.Variable
	_, err := c.Do(ctx, "get variable."+name, func() ([]byte, error) {
		read = c.server.variables.of[name].Clone()
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return read, nil
}

// UpdateVariable implements variable.Requests.
func (c *Client) UpdateVariable(ctx context.Context, next *kube.Variable) (*kube.Variable, error) {
	next = next.Clone()
	var stored *kube.Variable
	_, err := c.Do(ctx, "put variable."+next.Name, func() (_ []byte, err error) {
		if c.server.Weather.Unstored && next.ResourceVersion == c.server.variables.of[next.Name].ResourceVersion {
			return nil, errDropped // this fault loses only a write that the server would store
		}
		stored, err = c.server.variables.put(next)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// WatchVariable implements variable.Requests. Each watch ends after a while.
func (c *Client) WatchVariable(ctx context.Context, name, from string, fn func(v *kube.Variable, gone bool)) error {
	_, err := c.Do(ctx, "watch variable."+name, func() ([]byte, error) { return nil, nil })
	if err != nil {
		return err
	}
	if !c.Enter() {
		return engine.ErrDead
	}
	timer := time.NewTimer(engine.Between(c.source("watches"), time.Millisecond, time.Minute))
	c.Leave()
	defer timer.Stop()
	for {
		if !c.Enter() {
			return engine.ErrDead
		}
		now, changed := c.server.variables.of[name], c.server.variables.changed
		c.Leave()
		if now.ResourceVersion != from {
			from = now.ResourceVersion
			fn(now.Clone(), false)
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
