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

// Config configures a [Monitor].
type Config struct {
	// Probes are the probes of the gated containers, by container. Containers
	// without probes are left out.
	Probes map[string]api.Probes
	// Address is the pod's own address.
	Address string
	// Grace is the time that a child has to stop after its startup probe has failed. If that
	// probe declares its own grace, Grace does not count.
	Grace time.Duration
	// Run runs a command beside a child.
	Run func(ctx context.Context, child Child, command []string, timeout time.Duration) Result
	// Do carries out each probe that is not a command. If Do is nil, the Monitor uses the
	// function [Do].
	Do func(ctx context.Context, h api.Handler, address string, timeout time.Duration) Result
}

// Child is a running child whose postStart hook has ended.
type Child struct {
	// Shim and Hold identify the child, because a shim starts at most one child under a hold.
	Shim, Hold string
	// Age is the time since the child started.
	Age time.Duration
	// Serving reports that the child passed its probes under an earlier agent
	// process.
	Serving bool
	// Adopted reports that an earlier agent process started the child, and that nothing shows
	// whether the child has passed its startup probe. A failure of that probe then does not end
	// the child.
	Adopted bool
	// Spared reports that the agent answers the kubelet's readiness probe with success until the
	// child itself has passed that probe once. Until then only the reason in the pod's condition
	// ([api.ReadyCondition]) shows that the application is starting.
	Spared bool
}

// Notice is an Event that the agent must write. If End is set, the agent must also stop the
// child.
type Notice struct {
	Container       string
	Warning         bool
	Reason, Message string
	// End means that the agent must stop the child within Grace, and end the child's container.
	End   bool
	Child Child
	Grace time.Duration
}

// Monitor probes the children of the pod's gated containers.
type Monitor struct {
	config Config
	news   chan struct{}
	group  sync.WaitGroup

	mu         sync.Mutex
	containers map[string]*container
	notices    []Notice
	closed     bool
	// kubelet is the kubelet's User-Agent; empty before the kubelet's first request.
	kubelet string
}

// container is a gated container with probes.
type container struct {
	name   string
	probes api.Probes
	state  *childState // nil while no child runs
}

// childState is the state of one child.
type childState struct {
	child  Child
	began  time.Time
	ctx    context.Context // ctx ends with the child
	cancel context.CancelFunc
	// The field "started" reports that the child has passed its startup probe, or has none.
	started bool
	// ready reports that the child passes its readiness probe. While "driven" is set, the agent
	// runs that probe. The field "counted" is the instant of the last result that the field
	// "counter" has counted.
	ready   bool
	driven  bool
	counted time.Time
	counter counter
	// The field "refused" reports that no process listened at the port when the agent last ran
	// the readiness probe.
	refused bool
	// pending has the probes that are running, by name.
	pending map[string]*pendingProbe
	// The field "reported" has the last message about each probe, by the probe's name.
	reported map[string]string
	// The field "failed" has the instant of the last failure that counted for an Event, by the name
	// of the requested probe.
	failed map[string]time.Time
}

// New returns a Monitor that probes no child yet.
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

// Close ends all probes, and waits until every goroutine has ended.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	for _, c := range m.containers {
		c.forget()
	}
	m.mu.Unlock()
	m.group.Wait()
}

// News returns a channel that delivers a value when Ready or Take may have a new result.
func (m *Monitor) News() <-chan struct{} { return m.news }

// Take returns the notices since the last call.
func (m *Monitor) Take() []Notice {
	m.mu.Lock()
	defer m.mu.Unlock()
	notices := m.notices
	m.notices = nil
	return notices
}

func (c *container) forget() {
	if c.state != nil {
		c.state.cancel()
		c.state = nil
	}
}

// Ready reports whether each container with startup or readiness probes has a child that passes
// these probes.
func (m *Monitor) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		if c.waits() && (c.state == nil || !c.state.ready) {
			return false
		}
	}
	return true
}

// Waits reports whether any container has a startup or readiness probe.
func (m *Monitor) Waits() bool {
	for c := range maps.Values(m.containers) {
		if c.waits() {
			return true
		}
	}
	return false
}

func (c *container) waits() bool { return c.probes.Startup != nil || c.probes.Readiness != nil }

// tell stores notices, and wakes the agent's loop. The caller holds the mutex.
func (m *Monitor) tell(notices ...Notice) {
	m.notices = append(m.notices, notices...)
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// run carries out one probe of a child.
func (m *Monitor) run(ctx context.Context, l *childState, p *api.Probe, timeout time.Duration) Result {
	if p.Exec != nil {
		return m.config.Run(ctx, l.child, p.Exec.Command, timeout)
	}
	return m.config.Do(m.asKubelet(ctx), p.Handler, m.config.Address, timeout)
}
