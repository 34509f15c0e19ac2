// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// variables are the Variables in the API server. Variables have a separate random source and
// separate versions. So they change nothing in a story without Variables.
type variables struct {
	w       *World
	rng     *rand.Rand
	rv      int64
	of      map[string]*kube.Variable
	ledgers map[string]*ledger
	// changed is a channel. Each change of a Variable closes this channel and makes a new channel.
	changed chan struct{}
}

func newVariables(w *World) *variables {
	v := &variables{
		w: w, rng: w.Source("variables"), rv: 990, of: map[string]*kube.Variable{}, ledgers: map[string]*ledger{}, changed: make(chan struct{}),
	}
	for i, c := range shared {
		v.rv++
		v.of[c.Name] = &kube.Variable{Name: c.Name, UID: "variable-" + strconv.Itoa(i), ResourceVersion: text(v.rv)}
		v.ledgers[c.Name] = &ledger{w: w, name: c.Name, sums: map[string]string{}, holds: map[string][]kube.Fence{}}
	}
	return v
}

// shared are the Variables that each pod of the story declares. Adds to "keyed" have an
// idempotency key, and adds to "hits" have none. Programs write "fenced" under a hold.
var shared = []api.Claim{{Kind: api.Variable, Name: "keyed"}, {Kind: api.Variable, Name: "hits"}, {Kind: api.Variable, Name: "fenced"}}

// put stores the Variable as the API server does. By the schema's rules, put refuses a write that
// removes the fence, names another lock, or has an older fence.
func (v *variables) put(next *kube.Variable) (*kube.Variable, error) {
	before := v.of[next.Name]
	if next.UID != before.UID || next.ResourceVersion != before.ResourceVersion {
		return nil, status(409, "Conflict", "another resourceVersion")
	}
	if f := before.Fence; f != nil {
		switch n := next.Fence; {
		case n == nil || n.Lock != f.Lock, cmp.Or(cmp.Compare(n.Epoch, f.Epoch), cmp.Compare(n.Token, f.Token)) < 0:
			return nil, status(422, "Invalid", "FencedOff")
		}
	}
	v.rv += 1 + int64(v.rng.IntN(3))
	stored := next.Clone()
	stored.ResourceVersion = text(v.rv)
	v.of[next.Name] = stored
	v.ledgers[next.Name].stored(stored)
	close(v.changed)
	v.changed = make(chan struct{})
	return stored.Clone(), nil
}

// GetVariable implements variable.Requests.
func (c *clientOf) GetVariable(ctx context.Context, name string) (*kube.Variable, error) {
	var read *kube.Variable
	_, err := c.do(ctx, "get variable."+name, func() ([]byte, error) {
		read = c.w.variables.of[name].Clone()
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return read, nil
}

// UpdateVariable implements variable.Requests.
func (c *clientOf) UpdateVariable(ctx context.Context, next *kube.Variable) (*kube.Variable, error) {
	next = next.Clone()
	var stored *kube.Variable
	_, err := c.do(ctx, "put variable."+next.Name, func() (_ []byte, err error) {
		if c.w.weather.unstored && next.ResourceVersion == c.w.variables.of[next.Name].ResourceVersion {
			return nil, errDropped // this fault loses only a write that the server would store
		}
		stored, err = c.w.variables.put(next)
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// WatchVariable implements variable.Requests. Each watch ends after a while.
func (c *clientOf) WatchVariable(ctx context.Context, name, from string, fn func(v *kube.Variable, gone bool)) error {
	_, err := c.do(ctx, "watch variable."+name, func() ([]byte, error) { return nil, nil })
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
		now, changed := c.w.variables.of[name], c.w.variables.changed
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

// These are the names of the invariants of Variables, like the names in check.go. The violation
// "counted" is an acknowledged add that the sum of a Variable lacks, or an add that counts twice.
// The violation "fenced-off" is a write with the fence of a hold that no program of the writing pod
// has named.
const (
	counted   = "counted"
	fencedOff = "fenced-off"
)

// ledger records the adds that programs have sent to one Variable, and the answers of the agents.
type ledger struct {
	w    *World
	name string
	// acked is the sum of the acknowledged adds. The field "open" is the sum of the adds that may
	// have taken effect: those that are under way, and those whose outcome is unknown.
	acked, open int64
	// sums has each acknowledged sum as a key, and the program that got this answer as its value.
	sums map[string]string
	// holds has, for each pod, the fences of the holds that the programs of this pod have named.
	holds map[string][]kube.Fence
}

// value returns the integer of the Variable.
func (l *ledger) value() int64 {
	if n := l.w.variables.of[l.name].Integer; n != nil {
		return *n
	}
	return 0
}

// stored checks the invariants when a write is stored.
func (l *ledger) stored(v *kube.Variable) {
	l.w.Note("API", "stores %s = %d of write %s", l.name, l.value(), v.Write)
	l.check()
	pod, _, _ := strings.Cut(v.Write, ".")
	if v.Fence != nil && !slices.Contains(l.holds[pod], *v.Fence) {
		l.w.Violate(fencedOff, "%s writes %s with the fence %v, and its programs named no such hold", pod, l.name, *v.Fence)
	}
}

// check demands that the sum contains each acknowledged add, and nothing but adds that programs
// have sent.
func (l *ledger) check() {
	switch n := l.value(); {
	case n < l.acked:
		l.w.Violate(counted, "%s is %d, and %d are acknowledged", l.name, n, l.acked)
	case n > l.acked+l.open:
		l.w.Violate(counted, "%s is %d, and only %d are acknowledged or unknown", l.name, n, l.acked+l.open)
	}
}

// acks records that the agent has acknowledged an add of n, with the sum as the answer.
func (l *ledger) acks(by string, n int64, sum string) {
	l.acked, l.open = l.acked+n, l.open-n
	if other, known := l.sums[sum]; known {
		l.w.Violate(counted, "%s and %s both brought %s to %s", other, by, l.name, sum)
	}
	l.sums[sum] = by
	l.check()
}
