// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// settling is what a child has to open its port in before the first probe that
// may count against it. The kubelet learns of a new container about as late:
// it looks at the runtime once a second.
const settling = time.Second

// drive asks a child's startup probe, then its readiness probe, until that has
// passed. After that the kubelet's own calls are all there is.
func (m *Monitor) drive(ctx context.Context, c *container, l *life) {
	if p := c.probes.Startup; p != nil && !l.child.Serving {
		var count counter
		m.every(ctx, l, p, p.Period(), func(counts bool) bool { return m.startup(ctx, c, l, &count, counts) })
	}
	p := c.probes.Readiness
	if p == nil || !m.started(l) {
		return
	}
	// The kubelet too asks a container that is not ready more often than it is
	// declared, so that it becomes ready sooner.
	m.every(ctx, l, p, min(p.Period(), settling), func(bool) bool {
		r := m.run(ctx, l, p)
		m.mu.Lock()
		defer m.mu.Unlock()
		if ctx.Err() != nil || l.counter.note(r.Outcome, p) != Success {
			return ctx.Err() == nil
		}
		l.ready, l.driven, l.counted = true, false, time.Now()
		m.tell()
		return false
	})
}

func (m *Monitor) started(l *life) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.started
}

// every calls ask when the initial delay is over, and then once a period, until
// it says false or ctx ends. Where there is no initial delay, a first failure
// while the child settles does not count.
func (m *Monitor) every(ctx context.Context, l *life, p *api.Probe, period time.Duration, ask func(counts bool) bool) {
	first := p.InitialDelay()
	if first < settling {
		if time.Since(l.began) < settling && first == 0 && !ask(false) {
			return
		}
		first = settling
	}
	timer := time.NewTimer(time.Until(l.began.Add(first)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ask(true) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// startup asks the startup probe once; false when that is over.
func (m *Monitor) startup(ctx context.Context, c *container, l *life, count *counter, counts bool) bool {
	p := c.probes.Startup
	r := m.run(ctx, l, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	if r.Outcome != Success && !counts {
		return true
	}
	switch state := count.note(r.Outcome, p); {
	case state == Success:
		l.started = true
		if c.probes.Readiness == nil {
			l.ready, l.driven = true, false
		}
		m.tell()
		return false
	case state == Failure:
		delete(l.said, startup) // it is said once more, with what comes of it
		m.say(c, l, startup, r)
		m.tell(Notice{
			Container: c.name, Reason: "Killing", Message: fmt.Sprintf("Container %s failed startup probe, will be restarted", c.name),
			End: true, Child: l.child, Grace: m.grace(p),
		})
		return false
	case r.Outcome != Success:
		m.say(c, l, startup, r)
	}
	return true
}

// startup is what the kubelet calls the probe that it does not drive.
const startup = "startup"

// names are the probes as the kubelet begins its sentences.
var names = map[string]string{startup: "Startup", api.LivenessProbe: "Liveness", api.ReadinessProbe: "Readiness"}

// say tells people of a failure in the kubelet's words: once, until the words
// change. Called with the mutex held.
func (m *Monitor) say(c *container, l *life, probe string, r Result) {
	message := names[probe] + " probe failed: " + r.Output
	if r.Outcome == Unknown {
		message = names[probe] + " probe errored and resulted in unknown state: " + r.Output
	}
	if l.said[probe] == message {
		return
	}
	l.said[probe] = message
	m.tell(Notice{Container: c.name, Warning: true, Reason: "Unhealthy", Message: message})
}

func (m *Monitor) grace(p *api.Probe) time.Duration {
	if own := p.TerminationGracePeriodSeconds; own != nil {
		return time.Duration(*own) * time.Second
	}
	return m.config.Grace
}

// observe counts what the kubelet's readiness probe came to. Whoever else calls
// as well does not make it count faster than it is declared.
func (m *Monitor) observe(c *container, l *life, o Outcome) {
	p := c.probes.Readiness
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.life != l || l.driven || time.Since(l.counted) < p.Period()/2 {
		return
	}
	l.counted = time.Now()
	switch state := l.counter.note(o, p); {
	case state == Unknown || (state == Success) == l.ready:
	default:
		l.ready = state == Success
		m.tell()
	}
}
