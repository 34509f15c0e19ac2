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

// LocalAgent is a process of the agent that serves the local API.
type LocalAgent struct {
	*apiserver.Client
	pod *LocalPod
	// Where is the name of the process in the history of events.
	Where string
	// handler is nil until the process listens.
	handler http.Handler
	// The function "begin" runs the leash; nil for none.
	begin func()
	calls []*call // the open calls
	leaps chan struct{}
	stop  chan struct{}
	// Stopped reports that the process got SIGTERM.
	Stopped bool
	// FrozenAlone reports that the process is frozen, but not its node.
	FrozenAlone bool
	// thawedAt is the true time at which the frozen process last continued to run.
	thawedAt time.Duration
}

// startAgent starts an agent process, unless one lives.
func (p *LocalPod) startAgent() {
	switch {
	case p.Serves() || !p.Node.Up:
		return
	case p.Node.Paused:
		p.Node.whenUnpaused(p.startAgent)
		return
	}
	p.agents++
	a := &LocalAgent{
		pod: p, Where: fmt.Sprintf("%s/agent#%d", p.Name, p.agents),
		leaps: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	a.Client = p.w.newClient(p.w.NewProcess(), p.identity(), p.Node)
	a.Allowed = p.w.rightsOf(RoleName)
	if p.Node.frozen {
		a.Process.Freeze()
	}
	p.Agent, p.boots = a, noteBoot(p.boots, p.Node.boot)
	p.w.Note(a.Where, "agent local starts")
	config := local.Config{
		PodName: p.Name, PodUID: p.uid, PodIP: "10.0.1." + p.uid[len("pod-uid-"):], Claims: slices.Concat(p.claims, shared), Variables: a.Client,
		LeaseDuration: p.Duration, BootID: p.Node.boot, Boots: p.boots, Leases: a.Client, Leaps: a.leaps, Ahead: a.ahead, Clock: a.clock, Wall: a.wall,
		Random: a.random(),
	}
	p.attach(a, &config)
	p.w.Group.Go(func() {
		made, err := local.New(config)
		engine.Must(err)
		// A frozen leash keeps its mutex, so the leash begins only after the agent was made.
		if a.begin != nil {
			p.w.Group.Go(a.begin)
		}
		p.w.Do(func() { a.handler = made.Handler() })
		err = made.Run(a.Ctx, a.stop)
		p.w.Do(func() { a.exited(err) })
	})
}

// random returns a function that makes a new random source at each call. Each claim of the agent
// gets a separate source.
func (a *LocalAgent) random() func() rand.Source {
	n, of := uint64(0), a.pod.w.Source(a.Where).Uint64()
	return func() rand.Source {
		n++
		return rand.NewPCG(of, n)
	}
}

// clock reads the node's clock. The read waits while the process is frozen.
func (a *LocalAgent) clock() time.Duration {
	if !a.Enter() {
		a.pod.w.Lock()
	}
	defer a.pod.w.Unlock()
	return a.pod.Node.Now()
}

// ahead returns how far the node's wall clock was set ahead.
func (a *LocalAgent) ahead() time.Duration {
	a.pod.w.Lock()
	defer a.pod.w.Unlock()
	return a.pod.Node.set
}

// wall returns the node's wall clock.
func (a *LocalAgent) wall() time.Time {
	a.pod.w.Lock()
	defer a.pod.w.Unlock()
	return time.Now().Add(a.pod.Node.wallOff)
}

// exited cleans up after the process has ended by itself. The kubelet then starts a new process.
func (a *LocalAgent) exited(err error) {
	if a.Dead {
		return
	}
	a.pod.w.Note(a.Where, "agent local exits: %v", err)
	a.pod.KillAgent(engine.Between(a.pod.rng, 200*time.Millisecond, 2*time.Second))
}

// Kill ends the process immediately. The kernel ends the connections of the process.
func (a *LocalAgent) Kill() {
	a.Die()
	a.pod.w.Note(a.Where, "agent local is dead")
	a.pod.hangUp()
	for _, c := range slices.Clone(a.calls) {
		c.breaks()
	}
}

// Terminate sends SIGTERM to the agent.
func (a *LocalAgent) Terminate() {
	if !a.Stopped {
		a.Stopped = true
		a.pod.w.Note(a.Where, "agent local is told to stop")
		close(a.stop)
	}
}

// FreezeAlone freezes the process, but not its node.
func (a *LocalAgent) FreezeAlone() {
	a.FrozenAlone = true
	a.pod.w.Note(a.Where, "agent local is frozen")
	a.Process.Freeze()
}

// ThawAlone undoes FreezeAlone.
func (a *LocalAgent) ThawAlone() {
	if a.FrozenAlone {
		a.FrozenAlone = false
		a.pod.w.Note(a.Where, "agent local thaws")
		if !a.pod.Node.frozen {
			a.goOn()
		}
	}
}

// goOn lets the process continue after a freeze.
func (a *LocalAgent) goOn() {
	a.thawedAt = a.pod.w.Now()
	a.Process.Thaw()
}
