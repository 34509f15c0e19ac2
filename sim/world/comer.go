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

	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Run is a Job whose pods wait at a barrier. The name of the Job is a part of the names of the
// barrier's Leases.
type Run struct {
	// Name is the name of the Job.
	Name string
	// Barrier is the barrier of the pods, and Duration the lease duration.
	Barrier  api.Barrier
	Duration time.Duration
	// Leases are the Leases of the barrier. The first Lease records that the barrier is open.
	Leases []string
	// Pods are the existing pods of the run. The field "all" also has the pods that are gone.
	Pods, all []*Comer
	// Want is the number of pods that the Job keeps at the same time.
	Want int
	// Programs reports that the pods' programs wait at the barrier through the local API.
	Programs bool
}

// Comer is a pod with a barrier. Either its init container waits at the barrier, or its program
// waits at the barrier through the local API. The world judges only the container that waits, and
// removes the pod a while after that container has succeeded.
type Comer struct {
	w  *World
	of *Run
	// Name is the name of the pod, and Node its machine.
	Name string
	Node *Node
	rng  *rand.Rand
	// client is the client of the last process; nil before the first start. The field "began" is
	// the instant at which that process started. The field "died" is the instant at which that
	// process ended.
	client      *apiserver.Client
	began, died time.Duration
	starts      int
	// stop sends SIGTERM to the process.
	stop context.CancelFunc
	// Stopping reports that the pod is being deleted. The field "gone" reports that the pod no
	// longer exists. The field Passed reports that its container has succeeded.
	Stopping, gone, Passed bool
	// FrozenAlone reports that the process is frozen, but not its node.
	FrozenAlone bool
	// waits reports that a call of the program waits. The field "waited" is the end of the last
	// call.
	waits  bool
	waited time.Duration
	// Since is the instant since which the pod could go on: its barrier is open, or enough pods of
	// its run wait. Before that instant, the field is zero.
	Since time.Duration
}

// NewComer adds a pod of the run to the node, whose kubelet soon starts the container.
func NewComer(w *World, of *Run, name string, n *Node) *Comer {
	p := &Comer{w: w, of: of, Name: name, Node: n, rng: w.Source(name)}
	of.Pods, of.all = append(of.Pods, p), append(of.all, p)
	n.Tenants = append(n.Tenants, p)
	p.store()
	w.Note(name, "pod on %s waits at %v of %s", n.Name, of.Barrier, of.Name)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.start)
	return p
}

// store stores the object of the pod for the real enroll. The model of enroll reads
// [World.Gathered] instead, so the object exists only in a world with the real enroll
// ([LocalPod.store]).
func (p *Comer) store() {
	switch {
	case !p.w.Real:
	case p.of.Programs:
		storePod(p.w.API, p.Name, p.Node.Name, withLocal(arrivals(p.of.Barrier), p.of.Name, p.of.Duration))
	default:
		args := api.BarrierArgs{Barrier: p.of.Barrier, Run: p.of.Name, LeaseDuration: p.of.Duration, Credentials: api.CredentialsPath}
		storePod(p.w.API, p.Name, p.Node.Name, podObject{
			gated: api.GatedAfter, job: p.of.Name, init: map[string]any{"name": api.BarrierContainer, "args": args.Args()},
		})
	}
}

// identity returns the identity of the pod.
func (p *Comer) identity() string { return api.Identity(p.Name, "uid-of-"+p.Name) }

// Runs reports whether a process of the container lives.
func (p *Comer) Runs() bool { return p.client != nil && !p.client.Dead }

// start starts the container, unless it runs or has succeeded.
func (p *Comer) start() {
	switch {
	case p.gone || p.Passed || p.Stopping || p.Runs() || !p.Node.Up:
		return
	case p.Node.Paused:
		p.Node.whenUnpaused(p.start)
		return
	}
	if p.starts++; p.waits {
		p.waits, p.waited = false, p.died
	}
	c := p.w.newClient(p.w.NewProcess(), p.identity(), p.Node)
	random := rand.NewPCG(p.w.Seed, p.w.Source(fmt.Sprintf("%s#%d", p.Name, p.starts)).Uint64())
	c.Allowed = p.w.rightsOf(RoleName)
	ctx, stop := context.WithCancel(c.Ctx)
	p.client, p.began, p.FrozenAlone, p.stop = c, p.w.Now(), false, stop
	if p.Node.frozen {
		c.Process.Freeze()
	}
	p.w.Note(p.Name, "agent barrier starts")
	config := wait.BarrierConfig{
		API: c, Leases: p.of.Leases, Duration: p.of.Duration, PodName: p.Name, PodUID: "uid-of-" + p.Name, Log: p, Random: random,
		Clock: func() time.Duration { return p.clock(c) },
	}
	p.w.Group.Go(func() {
		defer stop()
		wait := wait.Barrier
		if p.of.Programs {
			wait = caller{p, c}.run
		}
		err := wait(ctx, config)
		p.w.Do(func() { p.exited(c, err) })
	})
}

// clock reads the clock of the node. The read waits while the process is frozen.
func (p *Comer) clock(c *apiserver.Client) time.Duration {
	if !c.Enter() {
		p.w.Lock()
	}
	defer p.w.Unlock()
	return p.Node.Now()
}

// Write adds a line of the process to the history.
func (p *Comer) Write(line []byte) (int, error) {
	p.w.Do(func() { p.w.Note(p.Name, "%s", strings.TrimSpace(string(line))) })
	return len(line), nil
}

// exited handles the end of a process that has ended by itself. A pod that is being deleted is
// removed. For any other pod, the kubelet starts the container again after an error. After a
// success the pod goes on, so exited checks that the barrier was open.
func (p *Comer) exited(c *apiserver.Client, err error) {
	if c.Dead {
		return
	}
	p.w.Note(p.Name, "agent barrier exits: %v", err)
	p.died = p.w.Now()
	c.Die()
	switch {
	case p.Stopping:
		p.remove()
	case err != nil:
		p.again()
	default:
		checkThrough(p)
		p.Passed = true
		p.w.After(engine.Between(p.rng, 100*time.Millisecond, time.Minute), p.remove)
	}
}

// again starts the container after its back-off.
func (p *Comer) again() { p.w.After(engine.Between(p.rng, 200*time.Millisecond, MostAgain), p.start) }

// Kill ends the process, and the kubelet starts the container again.
func (p *Comer) Kill() {
	p.crash()
	p.again()
}

// graceOfComers is the termination grace period of a pod with a barrier.
const graceOfComers = 10 * time.Second

// Delete deletes the pod. The kubelet kills the process after the grace, or immediately if the
// argument "force" is true.
func (p *Comer) Delete(force bool) {
	if p.Stopping || p.gone {
		return
	}
	p.Stopping = true
	p.w.Note(p.Name, "pod is deleted (force %v)", force)
	if force || !p.Runs() {
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
func (p *Comer) remove() {
	if p.gone {
		return
	}
	p.gone = true
	if p.w.Real {
		engine.Must(p.w.API.Remove("kubelet", "Pod", p.Name, "", ""))
	}
	p.of.Pods = slices.DeleteFunc(p.of.Pods, func(other *Comer) bool { return other == p })
	p.Node.Tenants = slices.DeleteFunc(p.Node.Tenants, func(other Tenant) bool { return other == p })
}

// freeze implements Tenant.
func (p *Comer) freeze() {
	if p.Runs() {
		p.client.Process.Freeze()
	}
}

// thaw implements Tenant.
func (p *Comer) thaw() {
	if p.Runs() && !p.FrozenAlone {
		p.client.Process.Thaw()
	}
}

// PauseAlone freezes the process, but not its node.
func (p *Comer) PauseAlone(last time.Duration) {
	p.FrozenAlone = true
	p.freeze()
	p.w.Note(p.Name, "agent barrier is frozen for %v", last)
	c := p.client
	p.w.After(last, func() {
		if p.client == c {
			p.Resume()
		}
	})
}

// Resume undoes PauseAlone.
func (p *Comer) Resume() {
	p.FrozenAlone = false
	if !p.Node.frozen {
		p.thaw()
	}
}

// crash implements Tenant.
func (p *Comer) crash() {
	if p.Runs() {
		p.died = p.w.Now()
		p.client.Die()
		p.w.Note(p.Name, "agent barrier is dead")
	}
}

// leapt implements Tenant. A barrier reads no wall clock.
func (p *Comer) leapt() {}

// Boot implements Tenant.
func (p *Comer) Boot() {
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 3*time.Second), p.start)
}
