// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// World has all that surrounds the agents and shims: the API server, the nodes and their pods.
type World struct {
	*engine.Engine
	// Checks judges all events.
	Checks *checks

	// API is the API server, and the network to it.
	API *apiserver.Server
	// Channel is the network between pods that support each other.
	Channel Channel
	Calm    bool          // quiet times: no fault begins, and no child fails
	Healed  time.Duration // the instant at which all faults ended
	// Down reports that a database is down without which no application passes its readiness probe.
	Down bool
	// OptedOut reports that the namespace has lost the label by which a namespace opts in.
	OptedOut bool
	// Nodes has all machines.
	Nodes []*Node
	Pods  []*Pod // the pods that have a process or an object
	// Enrolls has the living processes of enroll.
	Enrolls []*Enroller
	// reconciler makes the Reconciler of an Enroller.
	reconciler func(*Enroller) Reconciler
	// Real reports that the Reconciler is the real enroll.
	Real bool
	// role is the Role of the agents, as all models of enroll remember it.
	role step.Role
	// Read has the Leases that conditions of pods name.
	Read map[string]bool
	// Gathered has the runs whose pods wait at a barrier.
	Gathered []*Run
	// Sharded is the number of shards in the template of the sharded workload; zero without
	// such a workload.
	Sharded int
	// Mapped has the Jobs with shards. All Jobs but the last are deleted, and the last Job may be
	// deleted, too.
	Mapped []ShardedJob
	// Locals has the pods whose programs use the local API.
	Locals []*LocalPod
	// ledgers has what the world knows about each Variable of the pods in the field Locals. The
	// field Silent reports that programs send no more requests about these Variables.
	ledgers map[string]*ledger
	Silent  bool
	// Joins reports that one call of a program may bid for several claims.
	Joins bool
	// Restores reports that a person restores the objects of an earlier instant. Before the
	// restore, the application of each pod must stop. The gate "readiness" cannot stop an
	// application, so no pod in such a world has that gate.
	Restores bool
	// Strange reports that proxies and broken servers cause faults. The field Scarce reports that
	// pods run out of space, processes and buffers.
	Strange, Scarce bool
	// OwnKernel reports that each pod may run in a virtual machine of its own. So a changed boot id
	// proves no reboot.
	OwnKernel bool
	// Stored is called at each stored write of a Lease, with the author of the write. The argument
	// "handover" reports that the write changes the holder or the hold. Stored may be nil.
	Stored func(by string, handover bool)
}

// New returns the world of a seed. The caller must be in a synctest bubble. For each [Enroller] the
// function "enroll" returns the Reconciler that the Enroller runs.
func New(ctx context.Context, seed uint64, enroll func(*Enroller) Reconciler) *World {
	w := &World{Engine: engine.New(ctx, seed), reconciler: enroll, Read: map[string]bool{}}
	w.role = step.Role{Name: RoleName, Key: account, Memories: map[string]step.Memory{}}
	w.API = apiserver.New(w.Engine, w.stored)
	w.Checks = newChecks(w.Engine)
	w.Calm = true
	return w
}

// stored judges a stored write of a Lease. If the write matters to enroll, stored wakes enroll.
func (w *World) stored(by, lease string, sent time.Duration, before, after apiserver.Version) {
	w.Checks.leaseStored(by, lease, sent, before, after)
	checkPrepared(w, by, lease, after.Lease)
	checkOpened(w, by, lease, sent, before.Lease, after.Lease)
	if before.Body != nil && restamped(before.Lease, after.Lease) {
		w.API.Inform()
	}
	if w.Stored != nil && before.Lease != nil {
		was, is := before.Lease, after.Lease
		w.Stored(by, was.Holder != is.Holder || was.Annotations[api.HoldAnnotation] != is.Annotations[api.HoldAnnotation])
	}
}

// End stops all processes, and waits for their goroutines.
func (w *World) End() {
	w.Do(func() {
		for _, p := range w.Pods {
			for _, a := range p.Agents {
				a.Die()
			}
			p.Order.EndWait()
			for _, c := range p.Containers {
				for _, s := range c.Shims {
					s.die()
				}
			}
		}
		for _, n := range w.Nodes {
			for _, t := range n.Tenants {
				t.crash()
			}
		}
		for _, e := range w.Enrolls {
			e.Die()
		}
		w.Stop()
	})
	w.Group.Wait()
	// Some goroutines of the product outlive the call of Run that started them. Such a goroutine
	// may still wait for the random time after its last request (sender.await of package
	// apiserver).
	<-time.After(time.Millisecond)
}
