// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Scripted is a server for the tests of the agent's packages. It stores as [Server] does, but no fault
// is drawn: each request takes the same time, and the test decides which one fails. A test may change
// the fields while requests are under way, if it does so by [engine.Engine.Do].
type Scripted struct {
	*engine.Engine
	*Server
	// Takes is the time until a request arrives. The field Writes adds to the time of a PUT, and the
	// field Answers is the time until the answer arrives.
	Takes, Writes, Answers time.Duration
	// Refuse, if not nil, returns the error of a request that has arrived, which then has no effect. The
	// function may wait for the end of ctx, as a server that hangs.
	Refuse func(ctx context.Context, r Request) error
	// Answer, if not nil, gets the outcome of a request, and returns the error that the client gets. The
	// function may also change objects before the client gets the answer.
	Answer func(r Request, err error) error
	// Ends is the time after which each watch of a Lease ends; zero means never.
	Ends time.Duration
	// Behind is the number of states by which a watch without a resourceVersion begins too early.
	Behind int
	away   bool
	sent   []Request
}

// Request is one request to a [Scripted] server.
type Request struct {
	// Verb is "get", "put", "watch" or "event". Name is that of the Lease; "variable." precedes that of
	// a Variable. Version is the resourceVersion from which a watch begins.
	Verb, Name, Version string
	// At is the time at which the client named By sent the request.
	At time.Time
	By string
	// Lease, Variable and Event are the object of a write.
	Lease    *kube.Lease
	Variable *kube.Variable
	Event    kube.Event
}

func (r Request) op() string {
	if r.Name == "" {
		return r.Verb
	}
	return r.Verb + " " + r.Name
}

// NewScripted returns a server with released Leases. Its resourceVersions are 1, 2, 3, ….
func NewScripted(ctx context.Context, leases ...string) *Scripted {
	e := engine.New(ctx, 1)
	s := &Scripted{Engine: e, Server: New(e, func(string, string, time.Duration, Version, Version) {})}
	s.Server.script, s.Server.rng, s.rv = s, nil, 0
	s.Variables = NewVariables(e, nil, func(string, *Variable) {})
	s.Variables.rng, s.Variables.rv = nil, 0
	for _, name := range leases {
		s.Set(&kube.Lease{Name: name})
	}
	return s
}

// Client returns the client of a process that has all rights.
func (s *Scripted) Client(name string) *Client { return s.NewClient(s.NewProcess(), name, nil) }

// send sends one request. As in a real network, a request may arrive after its sender has given up.
func (s *Scripted) send(ctx context.Context, r Request, effect func() ([]byte, error)) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r.At = time.Now()
	s.Lock()
	s.sent = append(s.sent, r)
	takes, answers := s.Takes, s.Answers
	if r.Verb == "put" {
		takes += s.Writes
	}
	s.Unlock()
	reply := make(chan answer, 1)
	go func() {
		s.wait(takes)
		raw, err := s.arrive(ctx, r, effect)
		s.wait(answers)
		reply <- answer{raw, err}
	}()
	select {
	case a := <-reply:
		return a.raw, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wait sleeps for the duration, but no longer than the test runs. The race detector crashes if goroutines
// of one bubble receive from timers of zero at once (Go 1.26).
func (s *Scripted) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-s.Ctx.Done():
	}
}

// arrive lets a request take effect, unless it fails.
func (s *Scripted) arrive(ctx context.Context, r Request, effect func() ([]byte, error)) ([]byte, error) {
	s.Lock()
	away, refuse, answer := s.away, s.Refuse, s.Answer
	s.Unlock()
	if away {
		return nil, ErrUnreachable
	}
	if refuse != nil {
		if err := refuse(ctx, r); err != nil {
			return nil, err
		}
	}
	s.Lock()
	raw, err := effect()
	s.Unlock()
	if answer != nil {
		err = answer(r, err)
	}
	return raw, err
}

// SetAway makes the server unreachable, or reachable again. All watches of Leases end.
func (s *Scripted) SetAway(away bool) {
	s.Do(func() {
		s.away = away
		s.Watches.Cut()
	})
}

// Set stores the Leases as they are, whoever has written them. A Lease with another UID replaces the
// present one.
func (s *Scripted) Set(leases ...*kube.Lease) {
	s.Do(func() {
		for _, l := range leases {
			s.set(l)
		}
	})
}

func (s *Scripted) set(l *kube.Lease) {
	raw, err := l.MarshalJSON()
	engine.Must(err)
	o := s.Object("Lease", l.Name)
	before := o.Last()
	uid := cmp.Or(l.UID, before.UID, "uid-"+l.Name)
	if before.Body != nil && before.UID != uid {
		engine.Must(s.Remove("test", "Lease", l.Name, "", ""))
	}
	s.Server.store("test", o, Decode(raw), uid)
}

// Edit changes the Lease, as another client's write does.
func (s *Scripted) Edit(name string, edit func(l *kube.Lease)) {
	s.Do(func() {
		v := agentsLease(s.Object("Lease", name).Last().Raw)
		if v.Annotations == nil {
			v.Annotations = map[string]string{}
		}
		edit(v)
		s.set(v)
	})
}

// Delete deletes the Lease.
func (s *Scripted) Delete(name string) {
	s.Do(func() { engine.Must(s.Remove("test", "Lease", name, "", "")) })
}

// Lease returns a copy of the Lease, or nil.
func (s *Scripted) Lease(name string) (l *kube.Lease) {
	s.Do(func() {
		if raw, err := s.Get("Lease", name); err == nil {
			l = agentsLease(raw)
		}
	})
	return l
}

// Variable returns a copy of the Variable, or nil.
func (s *Scripted) Variable(name string) (v *kube.Variable) {
	s.Do(func() { v = s.Variables.get(name) })
	return v
}

// SetVariable stores the Variable as it is, with the next resourceVersion.
func (s *Scripted) SetVariable(v *kube.Variable) { s.Do(func() { s.Variables.store(v) }) }

// DeleteVariable deletes the Variable.
func (s *Scripted) DeleteVariable(name string) { s.Do(func() { s.Variables.remove(name) }) }

// Requests returns the requests so far that have one of the verbs; without a verb, all.
func (s *Scripted) Requests(verbs ...string) (sent []Request) {
	s.Do(func() {
		for _, r := range s.sent {
			if len(verbs) == 0 || slices.Contains(verbs, r.Verb) {
				sent = append(sent, r)
			}
		}
	})
	return sent
}
