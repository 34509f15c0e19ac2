// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	theSlot = "singleton.deployment.biller"
	boot    = "boot-1"
)

// server is an API server in memory: one namespace, whose Leases are compared
// and swapped.
type server struct {
	mu       sync.Mutex
	version  int
	leases   map[string]*kube.Lease
	watchers map[*watcher]bool
	patches  int
	events   []kube.Event
	writes   int
	reads    int
	watches  int
	changed  chan struct{}
}

type watcher struct {
	name   string
	events chan kube.WatchEvent
	ended  chan struct{}
}

func newServer() *server {
	return &server{version: 100, leases: map[string]*kube.Lease{}, watchers: map[*watcher]bool{}}
}

// put makes or replaces a Lease as enroll, or a person, would.
func (s *server) put(l *kube.Lease) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.UID == "" {
		l.UID = fmt.Sprintf("uid-%d", s.version)
	}
	return s.store(l)
}

func (s *server) store(l *kube.Lease) *kube.Lease {
	s.version++
	l = l.Clone()
	l.ResourceVersion = strconv.Itoa(s.version)
	s.leases[l.Name] = l
	for w := range s.watchers {
		if w.name == l.Name {
			w.events <- kube.WatchEvent{Type: kube.Modified, Lease: l.Clone(), ResourceVersion: l.ResourceVersion}
		}
	}
	return l.Clone()
}

func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	l := s.leases[name]
	delete(s.leases, name)
	for w := range s.watchers {
		if w.name == name {
			w.events <- kube.WatchEvent{Type: kube.Deleted, Lease: l.Clone(), ResourceVersion: strconv.Itoa(s.version)}
		}
	}
}

func (s *server) lease(name string) kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.leases[name]; l != nil {
		return *l.Clone()
	}
	return kube.Lease{}
}

// requests are all that ever came, watches included.
func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes + s.reads + s.watches + s.patches
}

// link is one node's way to the server.
type link struct {
	server *server
	mu     sync.Mutex
	// cut: requests hang until they time out, watches break; heal is closed
	// when that is over. refuse: they are refused at once. lose: the next
	// write is stored, and its answer is lost.
	cut    bool
	refuse error
	lose   bool
	// noStatus refuses patches of the status.
	noStatus bool
	patches  []string
}

func (l *link) set(f func(l *link)) {
	l.mu.Lock()
	f(l)
	cut := l.cut || l.refuse != nil
	l.mu.Unlock()
	if cut {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		for w := range l.server.watchers {
			close(w.ended)
			delete(l.server.watchers, w)
		}
	}
}

func (l *link) pass(ctx context.Context) error {
	l.mu.Lock()
	cut, refuse := l.cut, l.refuse
	l.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if cut {
		<-ctx.Done()
		return ctx.Err()
	}
	return ctx.Err()
}

func (l *link) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.reads++
	if found := l.server.leases[name]; found != nil {
		return found.Clone(), nil
	}
	return nil, &kube.StatusError{Code: 404}
}

func (l *link) UpdateLease(ctx context.Context, next *kube.Lease) (*kube.Lease, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	stored, err := l.server.update(next)
	l.mu.Lock()
	lose := l.lose
	l.lose = false
	l.mu.Unlock()
	if lose {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return stored, err
}

func (s *server) update(next *kube.Lease) (*kube.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	found := s.leases[next.Name]
	switch {
	case next.UID == "":
		panic("a PUT without uid")
	case found == nil:
		return nil, &kube.StatusError{Code: 404}
	case found.UID != next.UID || found.ResourceVersion != next.ResourceVersion:
		return nil, &kube.StatusError{Code: 409}
	}
	return s.store(next), nil
}

func (l *link) WatchLease(ctx context.Context, name, version string, fn func(kube.WatchEvent)) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	w := &watcher{name: name, events: make(chan kube.WatchEvent, 1000), ended: make(chan struct{})}
	l.server.mu.Lock()
	l.server.watches++
	l.server.watchers[w] = true
	if found := l.server.leases[name]; found != nil && found.ResourceVersion != version {
		w.events <- kube.WatchEvent{Type: kube.Modified, Lease: found.Clone(), ResourceVersion: found.ResourceVersion}
	}
	l.server.mu.Unlock()
	defer func() {
		l.server.mu.Lock()
		delete(l.server.watchers, w)
		l.server.mu.Unlock()
	}()
	for {
		select {
		case e := <-w.events:
			fn(e)
		case <-w.ended:
			return errors.New("connection reset")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) PatchPodStatus(ctx context.Context, _ string, patch []byte) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noStatus {
		return &kube.StatusError{Code: 403}
	}
	l.patches = append(l.patches, string(patch))
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.patches++
	return nil
}

func (l *link) CreateEvent(ctx context.Context, e kube.Event) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.events = append(l.server.events, e)
	return nil
}

// gates are the shims of one pod, as the agent's end of the gate has them.
type gates struct {
	clock   func() time.Duration
	reports chan gate.Report
	mu      *sync.Mutex
	shims   map[gate.ShimID]*fakeShim
	grants  []gate.Grant
	drains  []string
	// granting is called at each grant.
	granting func()
}

// fakeShim has a child that takes stop to stop.
type fakeShim struct {
	report gate.Report
	grant  gate.Grant
	stop   time.Duration
	// stuck: the child is in uninterruptible sleep, and no kill reaches it.
	stuck bool
	ended  chan struct{}
	// ran is when a child was alive, from and to.
	ran [][2]time.Duration
}

func newGates(clock func() time.Duration) *gates {
	return &gates{clock: clock, reports: make(chan gate.Report, 1000), mu: new(sync.Mutex), shims: map[gate.ShimID]*fakeShim{}}
}

func (g *gates) Reports() <-chan gate.Report { return g.reports }

// connect adds a shim, or brings one back.
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
	r.Connected = true
	s.report = r
	g.reports <- r
	return s
}

// report changes what a shim says.
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
	// Who is not connected can say nothing; its pidfd can.
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
	g.grants = append(g.grants, grant)
	s.grant = grant
	if s.report.Phase != gate.Waiting {
		return nil
	}
	g.change(s, func(r *gate.Report) { r.Phase, r.Hold, r.Slots, r.Unproven = gate.Running, grant.Hold, grant.Slots, "" })
	s.ended = make(chan struct{})
	go g.watchdog(s, s.ended)
	return nil
}

// watchdog drains at the deadline of the last grant.
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
	g.drains = append(g.drains, reason)
	if s.report.Phase != gate.Running {
		return nil
	}
	g.change(s, func(r *gate.Report) { r.Phase = gate.Draining })
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

// end lets the child come to its own end.
func (g *gates) end(id gate.ShimID) {
	g.report(id, func(r *gate.Report) { r.Phase = gate.Ended })
	close(g.shims[id].ended)
}

func (g *gates) phase(id gate.ShimID) gate.Phase {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shims[id].report.Phase
}

// given are all grants so far.
func (g *gates) given() []gate.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.grants)
}

// told are the reasons of all drains so far.
func (g *gates) told() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.drains)
}

// shim is a copy of what a shim is.
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

// world is a server and the pods around it, in a bubble.
type world struct {
	t      *testing.T
	server *server
	began  time.Time
	pods   map[string]*pod
	// processes seeds each agent process differently.
	processes int
}

// pod is one pod: its agent, its gates, its link.
type pod struct {
	world *world
	*link
	gates  *gates
	config Config
	agent  *Agent
	cancel context.CancelFunc
	stop   chan struct{}
	done   chan error
}

// simulate runs f in a bubble of its own.
func simulate(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, server: newServer(), began: time.Now(), pods: map[string]*pod{}}
		f(w)
		// The shims' watchdogs end with their grants.
		for _, p := range w.pods {
			p.kill()
		}
		w.pass(2 * time.Minute)
	})
}

func (w *world) clock() time.Duration { return time.Since(w.began) + time.Hour }

// free makes Leases that enroll knows nobody to hold.
func (w *world) free(names ...string) {
	for _, name := range names {
		w.server.put(&kube.Lease{Name: name, DurationSeconds: 30})
	}
}

// start starts a pod's agent; a pod that has one already gets a new process.
func (w *world) start(name string, change ...func(c *Config)) *pod {
	p := w.pods[name]
	if p == nil {
		p = &pod{world: w, link: &link{server: w.server}, gates: newGates(w.clock)}
		p.config = Config{
			PodName: name, PodUID: "u", PodIP: "10.0.0." + strconv.Itoa(len(w.pods)+1),
			Slots: []string{theSlot}, Containers: []string{"app"}, Workload: "Deployment/biller",
			BootID: boot, Clock: w.clock, Log: slog.New(slog.DiscardHandler),
		}
		w.pods[name] = p
	} else {
		old := p.gates
		p.gates = newGates(w.clock)
		p.gates.shims, p.gates.mu = old.shims, old.mu
	}
	w.processes++
	p.config.API, p.config.Gate = p.link, p.gates
	p.config.Random = rand.NewPCG(uint64(w.processes), 7)
	for _, f := range change {
		f(&p.config)
	}
	var err error
	p.agent, err = New(p.config)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	p.cancel, p.stop, p.done = cancel, make(chan struct{}), make(chan error, 1)
	go func() { p.done <- p.agent.Run(ctx, p.stop) }()
	return p
}

// kill ends the agent's process, and nothing else.
func (p *pod) kill() {
	p.cancel()
	synctest.Wait()
}

func (p *pod) identity() string { return api.Identity(p.config.PodName, p.config.PodUID) }

// pass lets time go by and everything settle.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// within lets time go by until the condition holds, and says how long it took.
func (w *world) within(limit time.Duration, what string, condition func() bool) time.Duration {
	w.t.Helper()
	began := w.clock()
	for !condition() {
		if w.clock()-began > limit {
			require.FailNow(w.t, "not in time: "+what, "within %v", limit)
		}
		w.pass(10 * time.Millisecond)
	}
	return w.clock() - began
}

func (w *world) holder() string { return w.server.lease(theSlot).Holder }

// running reports whether the shim has a child.
func (p *pod) running(id gate.ShimID) bool { return p.gates.phase(id) == gate.Running }
