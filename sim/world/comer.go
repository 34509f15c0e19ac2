// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/barrier"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// run is a Job whose pods wait at a barrier. The name of the Job is a part of the names of the
// barrier's Leases.
type run struct {
	name     string
	barrier  api.Barrier
	duration time.Duration
	leases   []string
	// pods are the pods of the run that exist. The field "all" has the pods that are gone, too.
	pods, all []*comer
	// want is the number of pods of the run that the Job keeps at the same time.
	want int
	// programs reports that the pods wait by the local API.
	programs bool
}

// comer is a pod with a barrier. Either its init container runs package barrier, or its program
// waits by the local API. The world judges only the container that waits, and removes the pod a
// while after that container has succeeded.
type comer struct {
	w    *World
	of   *run
	name string
	node *node
	rng  *rand.Rand
	// client is the client of the last process; nil before the first start. The field "began" is
	// the instant at which that process started. The field "died" is the instant at which that
	// process ended.
	client      *apiserver.Client
	began, died time.Duration
	starts      int
	// stop sends SIGTERM to the process.
	stop context.CancelFunc
	// stopping reports that the pod is being deleted. The field "gone" reports that the pod no
	// longer exists. The field "passed" reports that its container has succeeded.
	stopping, gone, passed bool
	frozen                 bool
	// waits reports that a call of the program waits. The field "waited" is the end of the last
	// call.
	waits  bool
	waited time.Duration
	// since is the instant since which the pod could go on: its barrier is open, or enough pods of
	// its run wait. Until then since is zero.
	since time.Duration
}

// newComer adds a pod of the run to the node, whose kubelet soon starts the container.
func newComer(w *World, of *run, name string, n *node) *comer {
	p := &comer{w: w, of: of, name: name, node: n, rng: w.Source(name)}
	of.pods, of.all = append(of.pods, p), append(of.all, p)
	n.tenants = append(n.tenants, p)
	w.Note(name, "pod on %s waits at %v of %s", n.name, of.barrier, of.name)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.start)
	return p
}

// identity returns the identity of the pod.
func (p *comer) identity() string { return api.Identity(p.name, "uid-of-"+p.name) }

// runs reports whether a process of the container lives.
func (p *comer) runs() bool { return p.client != nil && !p.client.Dead }

// lived returns the last instant, now at the latest, at which the pod counted at its barrier. A
// pod counts while a process of its container lives. If its program waits by the local API, the pod
// counts only while a call waits. After that call the pod still counts for two seconds ([lingers]).
func (p *comer) lived() time.Duration {
	last := p.died
	if p.runs() {
		last = p.w.Now()
	}
	if p.of.programs && !p.waits {
		last = min(last, p.waited+slow(lingers))
	}
	return last
}

// start starts the container, unless it runs or has succeeded.
func (p *comer) start() {
	switch {
	case p.gone || p.passed || p.stopping || p.runs() || !p.node.up:
		return
	case p.node.paused:
		p.node.whenUnpaused(p.start)
		return
	}
	if p.starts++; p.waits {
		p.waits, p.waited = false, p.died
	}
	c := p.w.newClient(p.w.NewProcess(), p.identity(), p.node)
	random := rand.NewPCG(p.w.Seed, p.w.Source(fmt.Sprintf("%s#%d", p.name, p.starts)).Uint64())
	c.Allowed = p.allowed
	ctx, stop := context.WithCancel(c.Ctx)
	p.client, p.began, p.frozen, p.stop = c, p.w.Now(), false, stop
	if p.node.frozen {
		c.Process.Freeze()
	}
	p.w.Note(p.name, "agent barrier starts")
	config := barrier.Config{
		API: c, Leases: p.of.leases, Duration: p.of.duration, PodName: p.name, PodUID: "uid-of-" + p.name, Log: p, Random: random,
		Clock: func() time.Duration { return p.clock(c) },
	}
	p.w.Group.Go(func() {
		defer stop()
		wait := barrier.Run
		if p.of.programs {
			wait = caller{p, c}.run
		}
		err := wait(ctx, config)
		p.w.Do(func() { p.exited(c, err) })
	})
}

// clock reads the clock of the node. The read waits while the process is frozen.
func (p *comer) clock(c *apiserver.Client) time.Duration {
	if !c.Enter() {
		p.w.Lock()
	}
	defer p.w.Unlock()
	return p.node.Now()
}

// allowed returns nil, or the error with which the API server refuses a request for a Lease.
func (p *comer) allowed(verb, lease string) error {
	if !p.w.api.Granted(RoleName, verb, lease) {
		return apiserver.Status(403, "Forbidden", verb+" "+lease)
	}
	return nil
}

// Write adds a line of the process to the history.
func (p *comer) Write(line []byte) (int, error) {
	p.w.Do(func() { p.w.Note(p.name, "%s", strings.TrimSpace(string(line))) })
	return len(line), nil
}

// exited handles the end of a process that has ended by itself. A pod that is being deleted is
// removed. For any other pod, the kubelet starts the container again after an error. After a
// success the pod goes on, so exited checks that the barrier was open.
func (p *comer) exited(c *apiserver.Client, err error) {
	if c.Dead {
		return
	}
	p.w.Note(p.name, "agent barrier exits: %v", err)
	p.died = p.w.Now()
	c.Die()
	switch {
	case p.stopping:
		p.remove()
	case err != nil:
		p.again()
	default:
		checkThrough(p)
		p.passed = true
		p.w.After(engine.Between(p.rng, 100*time.Millisecond, time.Minute), p.remove)
	}
}

// again starts the container after its back-off.
func (p *comer) again() { p.w.After(engine.Between(p.rng, 200*time.Millisecond, mostAgain), p.start) }

// kill ends the process, and the kubelet starts the container again.
func (p *comer) kill() {
	p.crash()
	p.again()
}

// graceOfComers is the termination grace period of a pod with a barrier.
const graceOfComers = 10 * time.Second

// delete deletes the pod. The kubelet kills the process after the grace, or immediately if the
// argument "force" is true.
func (p *comer) delete(force bool) {
	if p.stopping || p.gone {
		return
	}
	p.stopping = true
	p.w.Note(p.name, "pod is deleted (force %v)", force)
	if force || !p.runs() {
		p.crash()
		p.remove()
		return
	}
	p.stop()
	p.w.After(graceOfComers, func() {
		p.crash()
		p.remove()
	})
}

// remove forgets the pod.
func (p *comer) remove() {
	if p.gone {
		return
	}
	p.gone = true
	p.of.pods = slices.DeleteFunc(p.of.pods, func(other *comer) bool { return other == p })
	p.node.tenants = slices.DeleteFunc(p.node.tenants, func(other tenant) bool { return other == p })
}

// freeze implements tenant.
func (p *comer) freeze() {
	if p.runs() {
		p.client.Process.Freeze()
	}
}

// thaw implements tenant.
func (p *comer) thaw() {
	if p.runs() && !p.frozen {
		p.client.Process.Thaw()
	}
}

// pauseAlone freezes the process, but not its node.
func (p *comer) pauseAlone(last time.Duration) {
	p.frozen = true
	p.freeze()
	p.w.Note(p.name, "agent barrier is frozen for %v", last)
	c := p.client
	p.w.After(last, func() {
		if p.client == c {
			p.resume()
		}
	})
}

// resume undoes pauseAlone.
func (p *comer) resume() {
	p.frozen = false
	if !p.node.frozen {
		p.thaw()
	}
}

// crash implements tenant.
func (p *comer) crash() {
	if p.runs() {
		p.died = p.w.Now()
		p.client.Die()
		p.w.Note(p.name, "agent barrier is dead")
	}
}

// leapt implements tenant. Package barrier reads no wall clock.
func (p *comer) leapt() {}

// boot implements tenant.
func (p *comer) boot() {
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 3*time.Second), p.start)
}
