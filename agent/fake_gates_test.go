// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// gates is a fake server with the fake shims of one pod.
type gates struct {
	clock   func() time.Duration
	reports chan gate.Report
	mu      *sync.Mutex
	shims   map[gate.ShimID]*fakeShim
	grants  []gate.Grant
	drains  []string
	// graces has the grace of each drain so far, in the order of the drains.
	graces []time.Duration
	// asides has the commands that ran beside children.
	asides []string
	// dismissed has the dismissals of waiting shims, the earliest first.
	dismissed []gate.Dismiss
	// notices has the lines for the logs of containers, each after the id of its shim.
	notices []string
	// granting, if set, is called at each grant.
	granting func()
	// slow reports that a shim does not start its child yet, although the shim has a grant.
	slow bool
	// broken reports that the gate cannot store grants on disk, and so refuses them.
	broken bool
}

// fakeShim is a shim without a process. The field "stop" is the time that the shim's child takes
// to end in a drain.
type fakeShim struct {
	report gate.Report
	grant  gate.Grant
	stop   time.Duration
	// stuck reports that the child cannot be killed, like a process in uninterruptible sleep.
	stuck bool
	ended chan struct{}
	// ran has the beginning and the end of each child's life.
	ran [][2]time.Duration
}

func newGates(clock func() time.Duration) *gates {
	return &gates{clock: clock, reports: make(chan gate.Report, 1000), mu: new(sync.Mutex), shims: map[gate.ShimID]*fakeShim{}}
}

func (g *gates) Reports() <-chan gate.Report { return g.reports }

// connect adds a shim, or connects a known shim again.
func (g *gates) connect(r gate.Report) *fakeShim {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.shims[r.Shim]
	if s == nil {
		s = &fakeShim{stop: 200 * time.Millisecond}
		g.shims[r.Shim] = s
	}
	if r.Phase == "" {
		r.Phase = gate.Waiting
	}
	if r.Since == 0 {
		r.Since = g.clock()
	}
	r.Connected = true
	s.report = r
	g.reports <- r
	return s
}

// report changes the report of a shim, and delivers the changed report.
func (g *gates) report(id gate.ShimID, f func(r *gate.Report)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.change(g.shims[id], f)
}

func (g *gates) change(s *fakeShim, f func(r *gate.Report)) {
	before, connected := s.report.Phase, s.report.Connected
	f(&s.report)
	s.report.Since = g.clock()
	now := s.report.Phase
	had, has := before == gate.Running || before == gate.Draining, now == gate.Running || now == gate.Draining
	if !had && has {
		s.ran = append(s.ran, [2]time.Duration{g.clock(), -1})
	}
	if (had && !has) || s.report.Dead {
		if n := len(s.ran); n > 0 && s.ran[n-1][1] < 0 {
			s.ran[n-1][1] = g.clock()
		}
	}
	// About a shim without a connection the server reports only the death, which the pidfd proves.
	if connected || s.report.Connected || s.report.Dead {
		g.reports <- s.report
	}
}

func (g *gates) Grant(id gate.ShimID, grant gate.Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.shims[id]
	if g.granting != nil {
		g.granting()
	}
	if g.broken {
		return gate.ErrNotNoted
	}
	if s.report.Phase == gate.Waiting && s.report.Hold == grant.Hold {
		return gate.ErrOver
	}
	g.grants = append(g.grants, grant)
	s.grant = grant
	if s.report.Phase != gate.Waiting || g.slow || grant.StartBy != 0 && g.clock() >= grant.StartBy {
		return nil
	}
	g.change(s, func(r *gate.Report) { r.Phase, r.Hold, r.Slots, r.Unproven = gate.Running, grant.Hold, grant.Slots, "" })
	s.ended = make(chan struct{})
	if grant.Deadline != gate.Unbounded {
		go g.watchdog(s, s.ended)
	}
	return nil
}

// watchdog drains the child in time for the deadline of the shim's last grant.
func (g *gates) watchdog(s *fakeShim, ended chan struct{}) {
	for {
		g.mu.Lock()
		drainAt := s.grant.Deadline - s.grant.Kill - s.grant.Drain
		draining := s.report.Phase != gate.Running
		g.mu.Unlock()
		left := drainAt - g.clock()
		if draining {
			return
		}
		if left <= 0 {
			_ = g.Drain(s.report.Shim, "watchdog", s.grant.Drain)
			return
		}
		select {
		case <-time.After(left):
		case <-ended:
			return
		}
	}
}

func (g *gates) Drain(id gate.ShimID, reason string, grace time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.shims[id]
	g.drains, g.graces = append(g.drains, reason), append(g.graces, grace)
	switch s.report.Phase {
	case gate.Running:
		g.change(s, func(r *gate.Report) { r.Phase = gate.Draining })
	case gate.Draining:
	default:
		return nil
	}
	go func() {
		<-time.After(min(s.stop, grace))
		g.mu.Lock()
		defer g.mu.Unlock()
		if s.report.Phase == gate.Draining && !s.report.Dead && !s.stuck {
			g.change(s, func(r *gate.Report) { r.Phase = gate.Waiting })
		}
	}()
	return nil
}

// Dismiss ends a waiting shim.
func (g *gates) Dismiss(id gate.ShimID, d gate.Dismiss) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.shims[id]; s.report.Phase == gate.Waiting {
		g.dismissed = append(g.dismissed, d)
		g.change(s, func(r *gate.Report) { r.Phase = gate.Ended })
	}
	return nil
}

// Notify stores a line for the log of a waiting shim's container.
func (g *gates) Notify(id gate.ShimID, line string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.notices = append(g.notices, string(id)+": "+line)
	return nil
}

// noticed returns the lines for the logs of containers so far.
func (g *gates) noticed() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.notices)
}

// codes returns the exit codes of all dismissals so far.
func (g *gates) codes() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	var codes []int
	for _, d := range g.dismissed {
		codes = append(codes, d.Code)
	}
	return codes
}

// end lets the child end by itself.
func (g *gates) end(id gate.ShimID) {
	g.report(id, func(r *gate.Report) { r.Phase = gate.Ended })
	close(g.shims[id].ended)
}

func (g *gates) phase(id gate.ShimID) gate.Phase {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shims[id].report.Phase
}

// given returns all grants so far.
func (g *gates) given() []gate.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.grants)
}

// told returns the reasons of all orders to drain so far.
func (g *gates) told() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.drains)
}

// The method "left" returns the graces of all orders to drain so far.
func (g *gates) left() []time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.graces)
}

// shim returns a copy of a shim.
func (g *gates) shim(id gate.ShimID) fakeShim {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := *g.shims[id]
	s.ran = slices.Clone(s.ran)
	return s
}

func (g *gates) hold(id gate.ShimID) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shims[id].report.Hold
}
