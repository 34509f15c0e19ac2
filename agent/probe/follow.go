// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"time"
)

// Follow replaces the children that the Monitor probes. The map has the running children, by
// container.
func (m *Monitor) Follow(children map[string]Child) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, c := range m.containers {
		child, ok := children[name]
		switch {
		case !ok || m.closed:
			c.forget()
		case c.state == nil || c.state.child.Shim != child.Shim || c.state.child.Hold != child.Hold:
			c.forget()
			m.begin(c, child)
		}
	}
}

// begin stores a new child, and starts to probe the child unless the child is already ready. The
// caller holds the mutex.
func (m *Monitor) begin(c *container, child Child) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &childState{
		child: child, began: time.Now().Add(-child.Age), ctx: ctx, cancel: cancel,
		started: c.probes.Startup == nil || child.Serving,
		ready:   child.Serving, pending: map[string]*pendingProbe{},
		reported: map[string]string{}, failed: map[string]time.Time{},
	}
	c.state = l
	if c.probes.Readiness == nil && l.started {
		l.ready = true
	}
	l.driven = !l.ready
	if l.driven {
		m.group.Go(func() { m.drive(ctx, c, l) })
	}
}
