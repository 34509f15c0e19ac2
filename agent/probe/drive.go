// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// opening is the time that a new child has to open its port. In this time a failed startup
// probe does not count. Without a gate, up to a second passes before the kubelet's first probe
// of a new container. The kubelet notices new containers only when the kubelet reads the
// container runtime's list, once a second.
const opening = time.Second

// prompt is the period of the readiness probe until the child has passed that probe. Until then
// new connections wait at the standbys, so a period of a second would prolong each handover. Two
// kinds of probes have a period of [opening] (a second) instead. An exec probe runs less often
// because a command costs more than a connection. A probe of another host runs less often because
// that host may serve many pods.
const prompt = 100 * time.Millisecond

// firstEager and lastEager bound the period of the agent's readiness probe while no process listens
// at the application's port. Within these bounds, the period is the time since the first probe, divided
// by eagerShare. So on average the probe adds a four-hundredth to the time of a start. A refused
// connection costs the application nothing, and costs the agent about a tenth of a millisecond.
const firstEager, lastEager, eagerShare = 5 * time.Millisecond, 20 * time.Millisecond, 200

// patience is the time for which the readiness probe runs more often than declared. After that
// the declared period counts, because an application may wait for its database for hours, and
// query the database in each probe.
const patience = 30 * time.Second

// pause returns the time until the next readiness probe of a child that is not ready. The argument
// "span" is the time since the child's first readiness probe. If the last probe has succeeded, but
// the success threshold is not reached, the pause is at most a second. Once a second the kubelet,
// too, probes a container that is not ready.
func (l *childState) pause(p *api.Probe, span time.Duration) time.Duration {
	switch {
	case span >= patience:
		return p.Period()
	case p.Exec != nil || asksElsewhere(p) || l.counter.last == Success:
		return min(p.Period(), opening)
	case l.refused:
		return min(max(span/eagerShare, firstEager), lastEager)
	}
	return prompt
}

// asksElsewhere reports whether the probe declares a host, so that the probe may go to another
// machine.
func asksElsewhere(p *api.Probe) bool {
	return p.HTTPGet != nil && p.HTTPGet.Host != "" || p.TCPSocket != nil && p.TCPSocket.Host != ""
}

// drive runs the startup probe of a child, and then the readiness probe until the child has
// passed the readiness probe. From then on the kubelet runs the readiness probe.
func (m *Monitor) drive(ctx context.Context, c *container, l *childState) {
	if p := c.probes.Startup; p != nil && !l.child.Serving {
		var count counter
		m.every(ctx, l, p, p.Period(), func(counts bool) bool { return m.startup(ctx, c, l, &count, counts) })
	}
	p := c.probes.Readiness
	if p == nil || !m.started(l) {
		return
	}
	// While a container is not ready, the agent probes more often than declared, as the kubelet
	// does. So the container becomes ready sooner.
	from := l.began.Add(p.InitialDelay())
	if now := time.Now(); from.Before(now) {
		from = now
	}
	repeat(ctx, from, func() time.Duration { return l.pause(p, time.Since(from)) }, func() bool {
		r := m.run(ctx, l, p, p.Timeout())
		m.mu.Lock()
		defer m.mu.Unlock()
		l.refused = r.Refused
		if ctx.Err() != nil || l.counter.count(r.Outcome, p) != Success {
			return ctx.Err() == nil
		}
		l.ready, l.driven, l.counted = true, false, time.Now()
		m.tell()
		return false
	})
}

func (m *Monitor) started(l *childState) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return l.started
}

// The method "every" calls the function "ask" after the initial delay, and then once a period,
// until that function returns false or ctx ends. For a new child without an initial delay, the
// first call comes immediately, and the second call at the end of the time [opening]. A failure of
// the first call does not count, because the child may still be opening its port.
func (m *Monitor) every(ctx context.Context, l *childState, p *api.Probe, period time.Duration, ask func(counts bool) bool) {
	first := p.InitialDelay()
	if first < opening {
		if time.Since(l.began) < opening && first == 0 && !ask(false) {
			return
		}
		first = opening
	}
	repeat(ctx, l.began.Add(first), func() time.Duration { return period }, func() bool { return ask(true) })
}

// repeat calls the function "ask" at the given instant, and then once a period, until that
// function returns false or ctx ends.
func repeat(ctx context.Context, from time.Time, period func() time.Duration, ask func() bool) {
	timer := time.NewTimer(time.Until(from))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	last := period()
	tick := time.NewTicker(last)
	defer tick.Stop()
	for ask() {
		if next := period(); next != last {
			last = next
			tick.Reset(last)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// startup runs the startup probe once. The result is false if the probe need not run again.
func (m *Monitor) startup(ctx context.Context, c *container, l *childState, count *counter, counts bool) bool {
	p := c.probes.Startup
	r := m.run(ctx, l, p, p.Timeout())
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	if r.Outcome != Success && !counts {
		return true
	}
	switch state := count.count(r.Outcome, p); {
	case state == Success:
		l.started = true
		if c.probes.Readiness == nil {
			l.ready, l.driven = true, false
		}
		m.tell()
		return false
	case state == Failure && l.child.Adopted:
		*count = counter{}
		m.say(c, l, startup, r)
	case state == Failure:
		delete(l.reported, startup) // so that the next call of "say" repeats this failure
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

// startup names the startup probe, as [api.LivenessProbe] names the liveness probe.
const startup = "startup"

// names are the probes' names in the kubelet's Events.
var names = map[string]string{startup: "Startup", api.LivenessProbe: "Liveness", api.ReadinessProbe: "Readiness"}

// say reports a failure in an Event, in the kubelet's words. If a probe fails again with the
// same message, no further Event follows. The caller holds the mutex.
func (m *Monitor) say(c *container, l *childState, probe string, r Result) {
	message := names[probe] + " probe failed: " + r.Output
	if r.Outcome == Unknown {
		message = names[probe] + " probe errored and resulted in unknown state: " + r.Output
	}
	if l.reported[probe] == message {
		return
	}
	l.reported[probe] = message
	m.tell(Notice{Container: c.name, Warning: true, Reason: "Unhealthy", Message: message})
}

func (m *Monitor) grace(p *api.Probe) time.Duration {
	if own := p.TerminationGracePeriodSeconds; own != nil {
		return time.Duration(*own) * time.Second
	}
	return m.config.Grace
}

// observe counts a result of the readiness probe, which normally the kubelet requested. Other
// clients can request the probe, too. So observe ignores each result that follows the last
// counted result by less than half the declared period.
func (m *Monitor) observe(c *container, l *childState, o Outcome) {
	p := c.probes.Readiness
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.state != l || l.driven || time.Since(l.counted) < p.Period()/2 {
		return
	}
	l.counted = time.Now()
	switch state := l.counter.count(o, p); {
	case state == Unknown || (state == Success) == l.ready:
	default:
		l.ready = state == Success
		m.tell()
	}
}
