// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
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

// world is an API server and the pods around it, in a bubble of package synctest.
type world struct {
	t      *testing.T
	server *server
	began  time.Time
	pods   map[string]*pod
	// processes is the number of agent processes so far. A new process uses this number as the
	// seed of its random source.
	processes int
}

// pod is one pod with its agent, its gates, and its link to the server.
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

// simulate runs f with a new world, in a bubble of package synctest.
func simulate(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, server: newServer(t.Context()), began: time.Now(), pods: map[string]*pod{}}
		f(w)
		// After the agent's end, the watchdog of a fake shim goes on until the deadline of the
		// shim's grant. The clock of the bubble stops at the end of this function. So simulate
		// first lets the time until that deadline pass.
		longest := 2 * time.Minute
		for _, p := range w.pods {
			p.kill()
			longest = max(longest, 2*p.config.Failsafe.Outage)
		}
		w.pass(longest)
	})
}

// simulated makes a subtest of f, which gets the bubble's own t.
func simulated(f func(t *testing.T, w *world)) func(t *testing.T) {
	return func(t *testing.T) { simulate(t, func(w *world) { f(w.t, w) }) }
}

func (w *world) clock() time.Duration { return time.Since(w.began) + time.Hour }

// free creates Leases without a holder.
func (w *world) free(names ...string) {
	for _, name := range names {
		w.server.put(&kube.Lease{Name: name, DurationSeconds: 30})
	}
}

// start starts a pod with its agent. If the pod exists already, start starts a new agent
// process.
func (w *world) start(name string, change ...func(c *Config)) *pod {
	p := w.pods[name]
	if p == nil {
		p = &pod{world: w, link: newLink(w.server, name), gates: newGates(w.clock)}
		p.config = Config{
			Pod: Pod{
				PodName: name, PodUID: "u", PodIP: "10.0.0." + strconv.Itoa(len(w.pods)+1),
				Containers: []string{"app"}, Workload: "Deployment/biller", BootID: boot,
			},
			Claims:  Claims{Need: api.Need{Slots: []string{theSlot}}},
			Outside: Outside{Clock: w.clock, Leaps: make(chan struct{}), Log: slog.New(slog.DiscardHandler)},
		}
		w.pods[name] = p
	} else {
		old := p.gates
		p.gates = newGates(w.clock)
		p.gates.shims, p.gates.mu = old.shims, old.mu
	}
	w.processes++
	p.config.API, p.config.Gate, p.config.Shims = p.link, p.gates, p.gates
	p.config.NoteCourse = func(c Course) error {
		p.config.Course = c
		return nil
	}
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

// kill ends only the agent's process.
func (p *pod) kill() {
	p.cancel()
	synctest.Wait()
}

func (p *pod) identity() string { return api.Identity(p.config.PodName, p.config.PodUID) }

// connect starts a shim of the container "app", which waits for a grant.
func (p *pod) connect(id gate.ShimID) *fakeShim {
	return p.gates.connect(gate.Report{Shim: id, Container: "app"})
}

// hold starts the pod "a", whose shim s1 has a running child.
func (w *world) hold(change ...func(*Config)) *pod {
	w.free(theSlot)
	a := w.start("a", change...)
	a.connect("s1")
	w.within(time.Second, "the child runs", func() bool { return a.running("s1") })
	return a
}

// pair starts two pods, and connects a shim of each. The child of the first pod runs, and the
// second pod is a standby.
func (w *world) pair(change ...func(*Config)) (holder, standby *pod) {
	holder, standby = w.start("a", change...), w.start("b", change...)
	holder.connect("s1")
	w.within(time.Second, "child runs", func() bool { return holder.running("s1") })
	standby.connect("s2")
	w.pass(3 * time.Second)
	return holder, standby
}

// pass lets the time d pass, and then waits until every goroutine is blocked.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// within lets time pass until the condition is true, and returns how long that took. If the
// limit is over first, the test fails.
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

// running reports whether the shim has a child that is not draining.
func (p *pod) running(id gate.ShimID) bool { return p.gates.phase(id) == gate.Running }
