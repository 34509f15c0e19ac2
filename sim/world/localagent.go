// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// localAgent is a process of the agent that serves the local API.
type localAgent struct {
	*apiserver.Client
	pod   *localPod
	where string
	// handler is nil until the process listens.
	handler http.Handler
	calls   []*call // the open calls
	leaps   chan struct{}
	stop    chan struct{}
	stopped bool
	// frozen reports that the process is frozen, but not its node.
	frozen bool
	// thawedAt is the true time at which the process went on last.
	thawedAt time.Duration
}

// startAgent starts an agent process, unless one lives.
func (p *localPod) startAgent() {
	switch {
	case p.serves() || !p.node.up:
		return
	case p.node.paused:
		p.node.whenUnpaused(p.startAgent)
		return
	}
	p.agents++
	a := &localAgent{
		pod: p, where: fmt.Sprintf("%s/agent#%d", p.name, p.agents),
		leaps: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	a.Client = p.w.newClient(p.w.NewProcess(), p.identity(), p.node)
	a.Allowed = p.allowed
	if p.node.frozen {
		a.Process.Freeze()
	}
	p.agent = a
	p.w.Note(a.where, "agent local starts")
	config := local.Config{
		PodName: p.name, PodUID: p.uid, PodIP: "10.0.1." + p.uid[len("pod-uid-"):], Claims: slices.Concat(p.claims, shared), Variables: a.Client,
		LeaseDuration: p.duration, BootID: p.node.boot, Leases: a.Client, Leaps: a.leaps, Clock: a.clock, Wall: a.wall,
		Random: a.random(),
	}
	p.attach(a, &config)
	p.w.Group.Go(func() {
		made, err := local.New(config)
		engine.Must(err)
		p.w.Do(func() { a.handler = made.Handler() })
		err = made.Run(a.Ctx, a.stop)
		p.w.Do(func() { a.exited(err) })
	})
}

// random returns a function that makes another random source at each call. Each claim of the
// agent gets a separate source.
func (a *localAgent) random() func() rand.Source {
	n, of := uint64(0), a.pod.w.Source(a.where).Uint64()
	return func() rand.Source {
		n++
		return rand.NewPCG(of, n)
	}
}

// clock reads the node's clock. The read waits while the process is frozen.
func (a *localAgent) clock() time.Duration {
	if !a.Enter() {
		a.pod.w.Lock()
	}
	defer a.pod.w.Unlock()
	return a.pod.node.Now()
}

// wall returns the node's wall clock.
func (a *localAgent) wall() time.Time {
	a.pod.w.Lock()
	defer a.pod.w.Unlock()
	return time.Now().Add(a.pod.node.wallOff)
}

// exited cleans up after the process has ended by itself. The kubelet then starts a new process.
func (a *localAgent) exited(err error) {
	if a.Dead {
		return
	}
	a.pod.w.Note(a.where, "agent local exits: %v", err)
	a.pod.killAgent(engine.Between(a.pod.rng, 200*time.Millisecond, 2*time.Second))
}

// kill ends the process immediately. The kernel ends its connections.
func (a *localAgent) kill() {
	a.Die()
	a.pod.w.Note(a.where, "agent local is dead")
	a.pod.hangUp()
	for _, c := range slices.Clone(a.calls) {
		c.breaks()
	}
}

// terminate sends SIGTERM to the agent.
func (a *localAgent) terminate() {
	if !a.stopped {
		a.stopped = true
		a.pod.w.Note(a.where, "agent local is told to stop")
		close(a.stop)
	}
}

// freezeAlone freezes the process, but not its node.
func (a *localAgent) freezeAlone() {
	a.frozen = true
	a.pod.w.Note(a.where, "agent local is frozen")
	a.Process.Freeze()
}

// thawAlone undoes freezeAlone.
func (a *localAgent) thawAlone() {
	if a.frozen {
		a.frozen = false
		a.pod.w.Note(a.where, "agent local thaws")
		if !a.pod.node.frozen {
			a.goOn()
		}
	}
}

// goOn lets the process continue after a freeze.
func (a *localAgent) goOn() {
	a.thawedAt = a.pod.w.Now()
	a.Process.Thaw()
}
