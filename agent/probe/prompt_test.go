// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

// Without an agent, the kubelet runs a startup probe once a period, and the readiness probe
// right after the startup probe has passed. The kubelet's first probe comes at a random instant
// within a period. The agent's first probe comes at the start of the child.
func TestAgentsProbesNeverDelayThePodsReadiness(t *testing.T) {
	for name, tt := range map[string]struct {
		delay, period int
		up, latest    time.Duration
	}{
		"served at once":                   {0, 10, 0, 0},
		"served while opening":             {0, 10, 800 * time.Millisecond, time.Second},
		"served late":                      {0, 5, 12 * time.Second, 17 * time.Second},
		"served before the delay ends":     {20, 5, 12 * time.Second, 20 * time.Second},
		"served after the delay ends":      {7, 5, 12500 * time.Millisecond, 17500 * time.Millisecond},
		"served late, short period":        {0, 1, 24300 * time.Millisecond, 25300 * time.Millisecond},
		"served late, short period, delay": {10, 1, 24300 * time.Millisecond, 25300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			probes := api.Probes{
				Startup: declared("startup", func(p *api.Probe) {
					p.InitialDelaySeconds, p.PeriodSeconds, p.FailureThreshold = tt.delay, tt.period, 100
				}),
				Readiness: declared("readiness", nil),
			}
			bubble(t, probes, func(a *app) {
				ups := func() {
					a.answer("startup", passes)
					a.answer("readiness", passes)
				}
				if tt.up == 0 {
					ups()
				}
				a.runs("h1")
				a.pass(tt.up)
				assert.Equal(t, http.StatusOK, a.kubelet(api.ReadinessProbe).Code, "a container counts as ready while its child starts")
				ups()
				a.pass(tt.latest - tt.up)
				assert.True(t, a.Ready())
			})
		})
	}
}

// A strict controller replaces each old pod that is not Ready. So while the application of a spared
// pod starts, the controller must see a Ready pod.
func TestSparedPodPassesReadinessProbesDuringItsStart(t *testing.T) {
	probes := api.Probes{Readiness: declared("readiness", nil)}
	for _, spared := range []bool{false, true} {
		bubble(t, probes, func(a *app) {
			a.spared = spared
			a.runs("h1")
			a.pass(time.Second)
			assert.Equal(t, spared, a.kubelet(api.ReadinessProbe).Code == http.StatusOK)
			assert.False(t, a.Ready(), "the holder's Lease does not say yet that it serves")
			a.answer("readiness", passes)
			a.pass(time.Minute)
			assert.True(t, a.Ready())
			a.answer("readiness", fails)
			assert.NotEqual(t, http.StatusOK, a.kubelet(api.ReadinessProbe).Code, "once it has served, the application answers")
		})
	}
}

// New connections wait at the standbys until the new holder is ready.
func TestAgentProbesReadinessFrequentlyUntilTheProbePasses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *api.Probe)
		probe  string
		// The application serves from 4.05 s on. The field "fails" lists the times, in seconds, of
		// the probes before 4.05 s, which all fail; nil means 41 probes, one every 100 ms. The
		// field "ready" is the time at which the child is ready.
		fails []float64
		ready time.Duration
	}{
		"at once": {func(*api.Probe) {}, "readiness", nil, 4100 * time.Millisecond},
		"after the initial delay": {
			func(p *api.Probe) { p.InitialDelaySeconds = 4 }, "readiness", []float64{4}, 4100 * time.Millisecond},
		"initial delay after the start": {
			func(p *api.Probe) { p.InitialDelaySeconds = 6 }, "readiness", []float64{}, 6 * time.Second},
		"several successes, as slowly as a kubelet": {
			func(p *api.Probe) { p.SuccessThreshold = 3 }, "readiness", nil, 6100 * time.Millisecond},
		"a command, once a second": {
			func(p *api.Probe) { p.HTTPGet, p.Exec = nil, &api.ExecAction{Command: []string{"check"}} },
			"check", []float64{0, 1, 2, 3, 4}, 5 * time.Second},
		"another host, once a second": {
			func(p *api.Probe) { p.HTTPGet.Host = "203.0.113.7" }, "readiness", []float64{0, 1, 2, 3, 4}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, api.Probes{Readiness: declared("readiness", c.change)}, func(a *app) {
				a.runs("h1")
				a.pass(4050 * time.Millisecond)
				if c.fails != nil {
					assert.Equal(t, c.fails, append([]float64{}, a.times(c.probe)...))
				} else {
					assert.Len(t, a.times(c.probe), 41)
				}
				a.answer(c.probe, passes)
				a.pass(c.ready - 4051*time.Millisecond)
				assert.False(t, a.Ready())
				a.pass(2 * time.Millisecond)
				assert.True(t, a.Ready())
				probes := len(a.times(c.probe))
				a.pass(time.Minute)
				assert.Len(t, a.times(c.probe), probes, "then the kubelet probes")
			})
		})
	}
}

// A refused connection costs the application nothing, so the agent probes a closed port more often
// than an open port. On average the probe adds a four-hundredth to the time of a start.
func TestAgentProbesClosedPortsMoreOftenThanOpen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *api.Probe)
		probe  string
	}{
		"a request":    {nil, "readiness"},
		"a connection": {func(p *api.Probe) { p.HTTPGet, p.TCPSocket = nil, &api.TCPSocketAction{Port: 80} }, "tcp"},
		"a call":       {func(p *api.Probe) { p.HTTPGet, p.GRPC = nil, &api.GRPCAction{Port: 80} }, "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			readiness := declared("readiness", c.change)
			bubble(t, api.Probes{Readiness: readiness}, func(a *app) {
				closed := fails
				closed.Refused = true
				a.answer(c.probe, closed)
				a.runs("h1")
				a.pass(4 * time.Second)
				times := a.times(c.probe)
				for i, at := range times[1:] {
					assert.InDelta(t, min(max(times[i]/eagerShare, .005), .02), at-times[i], .001, "probe %d at %v s", i+1, at)
				}
				a.answer(c.probe, fails) // the port is open, and the application is not ready
				a.pass(lastEager)
				open := len(a.times(c.probe))
				a.pass(10 * prompt)
				assert.InDelta(t, 10, len(a.times(c.probe))-open, 1)
				a.answer(c.probe, closed)
				a.pass(patience)
				late := len(a.times(c.probe))
				a.pass(10 * readiness.Period())
				assert.InDelta(t, 10, len(a.times(c.probe))-late, 1, "after the patience, in the declared period")
			})
		})
	}
}

func TestAgentProbesOtherHostsOnlyOnceASecond(t *testing.T) {
	readiness := declared("readiness", func(p *api.Probe) { p.HTTPGet.Host = "203.0.113.7" })
	bubble(t, api.Probes{Readiness: readiness}, func(a *app) {
		closed := fails
		closed.Refused = true
		a.answer("readiness", closed)
		a.runs("h1")
		a.pass(4*time.Second + opening/2)
		assert.Equal(t, []float64{0, 1, 2, 3, 4}, a.times("readiness"))
	})
}

func TestReadinessProbesSlowDownWhileTheyFail(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *api.Probe)
		probe  string
		early  int
	}{
		"a request": {func(*api.Probe) {}, "readiness", 300},
		"after the initial delay": {
			func(p *api.Probe) { p.InitialDelaySeconds = 60 }, "readiness", 300},
		"a command": {
			func(p *api.Probe) { p.HTTPGet, p.Exec = nil, &api.ExecAction{Command: []string{"check"}} }, "check", 30},
	} {
		t.Run(name, func(t *testing.T) {
			readiness := declared("readiness", c.change)
			bubble(t, api.Probes{Readiness: readiness}, func(a *app) {
				a.runs("h1")
				a.pass(readiness.InitialDelay() + patience - time.Millisecond)
				assert.Len(t, a.times(c.probe), c.early)
				a.pass(10 * time.Minute)
				assert.InDelta(t, 60, len(a.times(c.probe))-c.early, 2, "once in the declared period")
				a.answer(c.probe, passes)
				a.pass(readiness.Period())
				assert.True(t, a.Ready())
			})
		})
	}
}
