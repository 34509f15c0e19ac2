// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// RunAside notes the command. The command succeeds while the child runs.
func (g *gates) RunAside(_ context.Context, id gate.ShimID, command []string, _ time.Duration) (gate.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shims[id].report.Phase != gate.Running {
		return gate.Result{}, gate.ErrNotRunning
	}
	g.asides = append(g.asides, strings.Join(command, " "))
	return gate.Result{}, nil
}

// End drains the child, and then ends the container.
func (g *gates) End(id gate.ShimID, reason string, grace time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drains = append(g.drains, reason+" "+grace.String())
	s := g.shims[id]
	g.change(s, func(r *gate.Report) { r.Phase = gate.Draining })
	go func() {
		<-time.After(min(s.stop, grace))
		g.end(id)
	}()
	return nil
}

// patient is an application. The field "sick" has the names of the probes that the application
// fails.
type patient struct {
	mu   sync.Mutex
	sick map[string]bool
	// asked counts the attempts of each probe.
	asked map[string]int
}

func newPatient(sick ...string) *patient {
	p := &patient{sick: map[string]bool{}, asked: map[string]int{}}
	for _, name := range sick {
		p.sick[name] = true
	}
	return p
}

func (p *patient) be(sick bool, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sick[name] = sick
}

func (p *patient) count(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[name]
}

// probed gives the pod's container the named probes, as TCP probes, each on a port of its own.
func (p *patient) probed(names ...string) func(c *Config) {
	ports := map[string]int{"startup": 1, "readiness": 2, "liveness": 3}
	return func(c *Config) {
		of := func(name string) *api.Probe {
			if !slices.Contains(names, name) {
				return nil
			}
			return &api.Probe{
				Handler:        api.Handler{TCPSocket: &api.TCPSocketAction{Port: ports[name]}},
				TimeoutSeconds: 1, PeriodSeconds: 5, SuccessThreshold: 1, FailureThreshold: 3,
			}
		}
		c.Probes = map[string]api.Probes{"app": {Startup: of("startup"), Readiness: of("readiness"), Liveness: of("liveness")}}
		c.Probe = func(_ context.Context, h api.Handler, _ string, _ time.Duration) probe.Result {
			p.mu.Lock()
			defer p.mu.Unlock()
			for name, port := range ports {
				if port == h.TCPSocket.Port {
					p.asked[name]++
					if p.sick[name] {
						return probe.Result{Outcome: probe.Failure, Output: "connection refused"}
					}
				}
			}
			return probe.Result{Outcome: probe.Success}
		}
	}
}

// kubelet sends the named probe as the kubelet does, and returns the answer's status code.
func (p *pod) kubelet(probe string) int {
	w := httptest.NewRecorder()
	p.agent.Probes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, api.ProbePath("app", probe), nil))
	return w.Code
}

func (w *world) serving() bool {
	return w.server.lease(theSlot).Annotations[api.ServingAnnotation] != ""
}

func TestHolderIsReadyOnlyWithAReadyApplication(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var of ports
		app := newPatient("startup", "readiness")
		a, b := w.start("a", app.probed("startup", "readiness", "liveness")), w.start("b", forwarding(&of))
		a.connect("s1")
		w.pass(8 * time.Second)
		assert.Equal(t, "False ApplicationNotReady", a.ready())
		assert.Equal(t, api.RoleHolder, *a.looks().Metadata.Labels[api.RoleLabel])
		assert.False(t, w.serving())
		assert.Equal(t, "False HolderNotServing", b.ready())
		assert.Equal(t, 200, a.kubelet("liveness"), "not before it has started")
		assert.Equal(t, 0, app.count("readiness"))

		app.be(false, "startup")
		w.pass(5 * time.Second)
		assert.Equal(t, "False ApplicationNotReady", a.ready())
		assert.NotZero(t, app.count("readiness"))
		app.be(false, "readiness")
		w.pass(5 * time.Second)
		assert.Equal(t, "True Holding", a.ready())
		assert.True(t, w.serving())
		assert.Equal(t, "True StandingBy", b.ready())

		app.be(true, "readiness")
		for range 3 {
			assert.Equal(t, "True Holding", a.ready())
			a.kubelet("readiness")
			w.pass(5 * time.Second)
		}
		assert.Equal(t, "False ApplicationNotReady", a.ready())
		assert.False(t, w.serving())
		assert.Equal(t, "True HandingOver", b.ready())
		w.pass(status.Handover(a.agent.state.self.Budget))
		assert.Equal(t, "False HolderNotServing", b.ready())
		assert.Equal(t, a.identity(), w.holder(), "not Ready is not dead")

		app.be(false, "readiness")
		a.kubelet("readiness")
		w.pass(2 * time.Second)
		assert.Equal(t, "True Holding", a.ready())
		assert.Equal(t, "True StandingBy", b.ready())
	})
}

func TestFailedStartupProbeEndsTheContainer(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		app := newPatient("startup")
		a := w.start("a", app.probed("startup"), func(c *Config) { c.Grace = 12 * time.Second })
		a.connect("s1")
		w.pass(10 * time.Second)
		assert.Equal(t, 3, app.count("startup"), "at once, after a second, and a period later")
		w.pass(3 * time.Second)
		assert.Equal(t, []string{reasonProbeFailed + " 12s"}, a.gates.told())
		assert.Equal(t, gate.Ended, a.gates.phase("s1"))
		assert.Empty(t, w.holder(), "released")
		var events []string
		for _, e := range w.server.events {
			if e.Container == "app" {
				events = append(events, string(e.Type)+" "+e.Reason+" "+e.Message)
			}
		}
		assert.Equal(t, []string{
			"Warning Unhealthy Startup probe failed: connection refused",
			"Warning Unhealthy Startup probe failed: connection refused",
			"Normal Killing Container app failed startup probe, will be restarted",
		}, events)
	})
}

func TestProbesWaitForThePostStartHook(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		app := newPatient()
		a := w.start("a", app.probed("readiness", "liveness"))
		s := a.gates.connect(gate.Report{Shim: "s1", Container: "app", Starting: true})
		w.pass(10 * time.Second)
		assert.True(t, a.running("s1"))
		assert.Zero(t, app.count("readiness"))
		assert.Equal(t, "False ApplicationNotReady", a.ready())
		assert.Equal(t, 200, a.kubelet("liveness"))
		a.gates.report("s1", func(r *gate.Report) { r.Starting = false })
		w.pass(2 * time.Second)
		assert.Equal(t, "True Holding", a.ready())

		app.be(true, "liveness")
		s.stop = 10 * time.Second
		a.agent.Yield()
		synctest.Wait()
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
		assert.Equal(t, 200, a.kubelet("liveness"))
		w.pass(time.Minute)
		assert.Equal(t, http.StatusTemporaryRedirect, a.kubelet("liveness"))
		a.gates.end("s1")
		w.pass(time.Second)
		assert.Equal(t, 200, a.kubelet("liveness"))
	})
}

func TestHolderIsReadyOnceAllContainersPassProbes(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		app := newPatient()
		a := w.start("a", app.probed("readiness"), func(c *Config) {
			c.Containers = []string{"app", "side", "plain"}
			c.Probes["side"] = api.Probes{Readiness: &api.Probe{
				Handler:        api.Handler{Exec: &api.ExecAction{Command: []string{"check", "me"}}},
				TimeoutSeconds: 1, PeriodSeconds: 5, SuccessThreshold: 1, FailureThreshold: 3,
			}}
		})
		a.connect("s1")
		a.gates.connect(gate.Report{Shim: "s3", Container: "plain"})
		w.pass(3 * time.Second)
		assert.Equal(t, "False ApplicationNotReady", a.ready())
		a.gates.connect(gate.Report{Shim: "s2", Container: "side"})
		w.pass(3 * time.Second)
		assert.Equal(t, "True Holding", a.ready())
		assert.Equal(t, []string{"check me"}, a.gates.asides)
	})
}
