// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Config of a [Monitor].
type Config struct {
	// Probes of the gated containers, by name. Those without any are left out.
	Probes map[string]api.Probes
	// Address is the pod's own.
	Address string
	// Grace is what a child that has not started is left to stop in, where its
	// probe does not say.
	Grace time.Duration
	// Run runs a command beside a child.
	Run func(ctx context.Context, child Child, command []string, timeout time.Duration) Result
	// Do carries out everything else; the package's own Do if nil.
	Do func(ctx context.Context, h api.Handler, address string, timeout time.Duration) Result
}

// Child is a child that runs, and whose postStart hook is over.
type Child struct {
	// Shim and Hold name it: a shim starts one child under one hold.
	Shim, Hold string
	// Age is how long it has run already.
	Age time.Duration
	// Serving: an earlier agent process found that it passes its probes.
	Serving bool
}

// Notice is something for people to know, or for the agent to do.
type Notice struct {
	Container       string
	Warning         bool
	Reason, Message string
	// End: the child is to be stopped within Grace, and its container with it.
	End   bool
	Child Child
	Grace time.Duration
}

// Monitor follows the children of a pod's gated containers.
type Monitor struct {
	config Config
	news   chan struct{}
	group  sync.WaitGroup

	mu         sync.Mutex
	containers map[string]*container
	notices    []Notice
	closed     bool
	// kubelet is the name by which the kubelet asks, empty until it has asked.
	kubelet string
}

// container is one with probes.
type container struct {
	name   string
	probes api.Probes
	life   *life // nil while no child runs
}

// life is what is known of one child.
type life struct {
	child  Child
	began  time.Time
	ctx    context.Context // ends with the child
	cancel context.CancelFunc
	// started: its startup probe has passed, or it has none.
	started bool
	// ready is what its readiness probe says; driven is as long as that is
	// driven from here, counted when a result last counted.
	ready   bool
	driven  bool
	counted time.Time
	counter counter
	// flights are the probes that others wait for, by name.
	flights map[string]*flight
	// said are the last words about each probe.
	said map[string]string
}

// New makes a Monitor. It starts nothing.
func New(config Config) *Monitor {
	if config.Do == nil {
		config.Do = Do
	}
	m := &Monitor{config: config, news: make(chan struct{}, 1), containers: map[string]*container{}}
	for name, probes := range config.Probes {
		m.containers[name] = &container{name: name, probes: probes}
	}
	return m
}

// Close forgets all children, and returns when nothing of it runs any more.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	for _, c := range m.containers {
		c.forget()
	}
	m.mu.Unlock()
	m.group.Wait()
}

// News says that Ready or Take may have something new.
func (m *Monitor) News() <-chan struct{} { return m.news }

// Take returns the notices since the last call.
func (m *Monitor) Take() []Notice {
	m.mu.Lock()
	defer m.mu.Unlock()
	notices := m.notices
	m.notices = nil
	return notices
}

// Follow says which children run, by container. Of those that are not among
// them nothing is asked any more.
func (m *Monitor) Follow(children map[string]Child) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, c := range m.containers {
		child, ok := children[name]
		switch {
		case !ok || m.closed:
			c.forget()
		case c.life == nil || c.life.child.Shim != child.Shim || c.life.child.Hold != child.Hold:
			c.forget()
			m.begin(c, child)
		}
	}
}

func (c *container) forget() {
	if c.life != nil {
		c.life.cancel()
		c.life = nil
	}
}

// begin follows a child. Called with the mutex held.
func (m *Monitor) begin(c *container, child Child) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{
		child: child, began: time.Now().Add(-child.Age), ctx: ctx, cancel: cancel,
		started: c.probes.Startup == nil || child.Serving,
		ready:   child.Serving, flights: map[string]*flight{}, said: map[string]string{},
	}
	c.life = l
	if c.probes.Readiness == nil && l.started {
		l.ready = true
	}
	l.driven = !l.ready
	if l.driven {
		m.group.Go(func() { m.drive(ctx, c, l) })
	}
}

// Ready reports whether every container that has probes has a child that passes
// them.
func (m *Monitor) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		if c.waits() && (c.life == nil || !c.life.ready) {
			return false
		}
	}
	return true
}

// Waits reports whether there is any probe to wait for.
func (m *Monitor) Waits() bool {
	for c := range maps.Values(m.containers) {
		if c.waits() {
			return true
		}
	}
	return false
}

func (c *container) waits() bool { return c.probes.Startup != nil || c.probes.Readiness != nil }

// tell wakes whoever waits for news. Called with the mutex held.
func (m *Monitor) tell(notices ...Notice) {
	m.notices = append(m.notices, notices...)
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// run carries out one probe of a child.
func (m *Monitor) run(ctx context.Context, l *life, p *api.Probe) Result {
	if p.Exec != nil {
		return m.config.Run(ctx, l.child, p.Exec.Command, p.Timeout())
	}
	return m.config.Do(m.asKubelet(ctx), p.Handler, m.config.Address, p.Timeout())
}
