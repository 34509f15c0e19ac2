// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// handBack is how long before the kubelet's timeout the agent redirects a hanging probe to the
// application. The kubelet then waits for the application itself, and reports the timeout in
// its own words. A probe's timeout is at least a second, so the agent still has most of that
// time.
const handBack = 100 * time.Millisecond

// slack is the additional time for an answer after the probe's own timeout.
const slack = time.Second

// Handler returns the HTTP handler that answers the kubelet's probes at the agent's port. The
// handler runs no commands, because other clients can reach that port.
func (m *Monitor) Handler() http.Handler {
	return m.handler(func(w http.ResponseWriter, r *http.Request, a probeRequest) {
		if a.probe.Exec != nil {
			http.NotFound(w, r)
			return
		}
		action := a.probe.HTTPGet
		if a.name == api.LivenessProbe && action != nil && action.Host == "" && !lostOnRedirect(action) {
			http.Redirect(w, r, m.redirect(a.probe).String(), http.StatusTemporaryRedirect)
			return
		}
		result := m.ask(a)
		to := m.redirect(a.probe)
		switch {
		case result.Status >= http.StatusOK:
			if result.Location != "" {
				w.Header().Set("Location", result.Location)
			}
			w.WriteHeader(result.Status)
		case result.Outcome == Success:
			w.WriteHeader(http.StatusOK)
		case to != nil:
			http.Redirect(w, r, to.String(), http.StatusTemporaryRedirect)
		default:
			m.mu.Lock()
			if a.counts() {
				m.say(a.container, a.state, a.name, result)
			}
			m.mu.Unlock()
			http.Error(w, result.Output, http.StatusServiceUnavailable)
		}
	})
}

// ExecHandler returns the HTTP handler for the agent's socket in the shared volume. The handler
// answers "agent probe" with the result of the probe. The shim runs the command of an exec probe, so
// the command dies with the child.
func (m *Monitor) ExecHandler() http.Handler {
	return m.handler(func(w http.ResponseWriter, _ *http.Request, a probeRequest) {
		if a.probe.Exec != nil {
			// The status comes at once, so that "agent probe" soon notices an agent that hangs.
			w.WriteHeader(api.ProbeRun)
			_ = http.NewResponseController(w).Flush()
			result := m.ask(a)
			_, _ = io.WriteString(w, words[result.Outcome]+"\n"+result.Output)
		} else if result := m.ask(a); result.Outcome != Success {
			w.WriteHeader(api.ProbeFail)
			_, _ = io.WriteString(w, result.Output)
		}
	})
}

// words are the outcomes of an exec probe, as the first line of an answer.
var words = map[Outcome]string{Unknown: api.ProbeUnknown, Success: api.ProbePassed, Failure: api.ProbeFailed}

// probeRequest is a request for a probe that a child must answer.
type probeRequest struct {
	container *container
	name      string
	probe     *api.Probe
	state     *childState
}

// counts remembers a failure, and reports whether an Event may tell of the failure. Other clients than
// the kubelet can request the probe, too. So counts ignores each failure that follows the last
// counted failure by less than half the declared period. The caller holds the mutex.
func (a probeRequest) counts() bool {
	last, now := a.state.failed[a.name], time.Now()
	if !last.IsZero() && now.Sub(last) < a.probe.Period()/2 {
		return false
	}
	a.state.failed[a.name] = now
	return true
}

// handler returns a handler for probes. The handler lets a probe pass while no child runs, before
// the startup probe has passed, and during the initial delay of the probe. The readiness probe of a
// spared child also passes until the child has passed that probe once. In any other case the
// handler calls the function "serve". A probe that is not declared gets the status 404.
func (m *Monitor) handler(serve func(http.ResponseWriter, *http.Request, probeRequest)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		container, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/probe/"), "/")
		c := m.containers[container]
		if c == nil || c.probe(name) == nil {
			http.NotFound(w, r)
			return
		}
		m.meet(r)
		a := probeRequest{container: c, name: name, probe: c.probe(name)}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.probe.Timeout() + slack))
		m.mu.Lock()
		due := c.due(a.probe) && !c.spares(name)
		a.state = c.state
		m.mu.Unlock()
		if !due {
			_, _ = io.WriteString(w, "the application does not run, or is starting\n")
			return
		}
		serve(w, r, a)
	})
}

func (c *container) probe(name string) *api.Probe {
	switch name {
	case api.LivenessProbe:
		return c.probes.Liveness
	case api.ReadinessProbe:
		return c.probes.Readiness
	}
	return nil
}

// due reports whether a child runs that has passed its startup probe, and whether the initial
// delay of the probe is over.
func (c *container) due(p *api.Probe) bool {
	return c.state != nil && c.state.started && time.Since(c.state.began) >= p.InitialDelay()
}

// The method "spares" reports whether the agent answers the probe with success in the child's
// stead. The agent does so for the readiness probe of a child in a spared pod, until the child
// passes that probe.
func (c *container) spares(probe string) bool {
	return probe == api.ReadinessProbe && c.state != nil && c.state.child.Spared && c.state.driven
}

// pendingProbe is a probe that is running. All clients that request the same probe meanwhile
// share its result. So the application gets only one such probe at a time, although any client
// that can reach the pod may request one.
type pendingProbe struct {
	done   chan struct{}
	result Result
}

// standing is the result of a probe whose child ended before the probe did. The pod is a standby
// by then, and a standby passes every probe.
var standing = Result{Outcome: Success}

// ask probes the application while the kubelet waits, and returns the result.
func (m *Monitor) ask(a probeRequest) Result {
	m.mu.Lock()
	if a.container.state != a.state {
		m.mu.Unlock()
		return standing
	}
	f := a.state.pending[a.name]
	if f == nil {
		f = &pendingProbe{done: make(chan struct{})}
		a.state.pending[a.name] = f
		m.group.Go(func() { m.execute(a, f) })
	}
	m.mu.Unlock()
	<-f.done
	return f.result
}

// execute runs the probe until its timeout, or until the child ends. A client that disconnects
// does not end the probe.
func (m *Monitor) execute(a probeRequest, f *pendingProbe) {
	defer close(f.done)
	timeout := a.probe.Timeout()
	if m.redirect(a.probe) != nil {
		timeout -= handBack
	}
	f.result = m.run(a.state.ctx, a.state, a.probe, timeout)
	m.mu.Lock()
	delete(a.state.pending, a.name)
	over := a.container.state != a.state
	m.mu.Unlock()
	switch {
	case over:
		f.result = standing
	case a.name == api.ReadinessProbe:
		m.observe(a.container, a.state, f.result.Outcome)
	}
}

// redirect returns the URL at which the kubelet can reach the application itself. The result is
// nil for gRPC. For a probe of another host the result is also nil, because the kubelet follows
// no redirect to another host. The URL of a probe with the scheme HTTP is returned without a
// scheme, because the kubelet's HTTP client then keeps the Host header.
func (m *Monitor) redirect(p *api.Probe) *url.URL {
	switch {
	case p.HTTPGet != nil && p.HTTPGet.Host == "":
		u := target(p.HTTPGet, m.config.Address)
		if u.Scheme == "http" {
			u.Scheme = ""
		}
		return u
	case p.TCPSocket != nil && p.TCPSocket.Host == "":
		return &url.URL{Host: join("", m.config.Address, p.TCPSocket.Port), Path: "/"}
	}
	return nil
}

// lostOnRedirect reports whether the probe uses HTTPS and names a virtual host. The kubelet asks
// the agent over HTTP, and loses the virtual host when the agent redirects the probe to HTTPS.
func lostOnRedirect(action *api.HTTPGetAction) bool {
	if !strings.EqualFold(action.Scheme, "https") {
		return false
	}
	for _, h := range action.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			return true
		}
	}
	return false
}
