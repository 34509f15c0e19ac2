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

// How the agent answers "agent probe", which an exec probe has become.
const (
	// StatusPass and StatusFail are the verdict; the latter's words are the
	// body.
	StatusPass = http.StatusOK
	StatusFail = http.StatusServiceUnavailable
	// StatusRun: the command is to be run there. ChildHeader is to be sent
	// back with what came of it.
	StatusRun   = http.StatusAccepted
	ChildHeader = "Metaparticle-Child"
	// PassedParameter is what came of it: "true" or "false".
	PassedParameter = "passed"
)

// handBack is left of the kubelet's patience when a probe that hangs is handed
// back to it, so that it meets the silence itself and says so in its own words.
// A probe's timeout is a second at least.
const handBack = 100 * time.Millisecond

// slack is what an answer may take longer than the probe that it is about.
const slack = time.Second

// Handler answers the kubelet, on the agent's port. Others may ask there too:
// they get no command run.
func (m *Monitor) Handler() http.Handler {
	return m.handler(func(w http.ResponseWriter, r *http.Request, a asked) {
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
			m.say(a.container, a.life, a.name, result)
			m.mu.Unlock()
			http.Error(w, result.Output, http.StatusServiceUnavailable)
		}
	})
}

// ProbeHandler answers exec probes, on the agent's socket in the shared volume.
func (m *Monitor) ProbeHandler() http.Handler {
	return m.handler(func(w http.ResponseWriter, r *http.Request, a asked) {
		child := a.life.child.Shim + "/" + a.life.child.Hold
		switch {
		case r.Method == http.MethodPost:
			if r.Header.Get(ChildHeader) == child && a.name == api.ReadinessProbe {
				m.observe(a.container, a.life, outcomeOf(r.URL.Query().Get(PassedParameter) == "true"))
			}
		case a.probe.Exec != nil:
			w.Header().Set(ChildHeader, child)
			w.WriteHeader(StatusRun)
		default:
			if result := m.ask(a); result.Outcome != Success {
				w.WriteHeader(StatusFail)
				_, _ = io.WriteString(w, result.Output)
			}
		}
	})
}

func outcomeOf(passed bool) Outcome {
	if passed {
		return Success
	}
	return Failure
}

// asked is a probe that is to be answered by a child.
type asked struct {
	container *container
	name      string
	probe     *api.Probe
	life      *life
}

// handler answers for what stands by, and lets serve answer for a child.
func (m *Monitor) handler(serve func(http.ResponseWriter, *http.Request, asked)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, probe, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/probe/"), "/")
		c := m.containers[name]
		if c == nil || c.probe(probe) == nil {
			http.NotFound(w, r)
			return
		}
		m.meet(r)
		a := asked{container: c, name: probe, probe: c.probe(probe)}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.probe.Timeout() + slack))
		m.mu.Lock()
		due := c.due(a.probe)
		a.life = c.life
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

// due: there is a child, and the kubelet would ask it by now if it had started
// with its container.
func (c *container) due(p *api.Probe) bool {
	return c.life != nil && c.life.started && time.Since(c.life.began) >= p.InitialDelay()
}

// flight is a probe that is under way, for all who ask for it meanwhile. Anybody
// may ask who reaches the pod, but of each probe that is declared only one at a
// time reaches the application.
type flight struct {
	landed chan struct{}
	result Result
}

// standing is what is left of a child that was stopped meanwhile: a standby.
var standing = Result{Outcome: Success}

// ask asks the application while the kubelet waits.
func (m *Monitor) ask(a asked) Result {
	m.mu.Lock()
	if a.container.life != a.life {
		m.mu.Unlock()
		return standing
	}
	f := a.life.flights[a.name]
	if f == nil {
		f = &flight{landed: make(chan struct{})}
		a.life.flights[a.name] = f
		m.group.Go(func() { m.fly(a, f) })
	}
	m.mu.Unlock()
	<-f.landed
	return f.result
}

// fly carries the probe out. It ends with its timeout or with the child, and not
// when one of those who ask is gone.
func (m *Monitor) fly(a asked, f *flight) {
	defer close(f.landed)
	timeout := a.probe.Timeout()
	if m.redirect(a.probe) != nil {
		timeout -= handBack
	}
	f.result = m.config.Do(m.asKubelet(a.life.ctx), a.probe.Handler, m.config.Address, timeout)
	m.mu.Lock()
	delete(a.life.flights, a.name)
	over := a.container.life != a.life
	m.mu.Unlock()
	switch {
	case over:
		f.result = standing
	case a.name == api.ReadinessProbe:
		m.observe(a.container, a.life, f.result.Outcome)
	}
}

// redirect is where the kubelet can meet the application itself: nil where it
// would not follow, as to another host than the pod's, or could not ask, as by
// gRPC. Without a scheme a redirect keeps the Host header.
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

// lostOnRedirect: the probe names a virtual host, which a redirect from HTTP to
// HTTPS would lose.
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
