// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// World has all that surrounds the programs under test: the API server, the nodes and
// their pods.
type World struct {
	*engine.Engine
	checks *checks

	api    *apiserver.Server
	calm   bool          // quiet times: no fault begins, and no child fails
	healed time.Duration // the instant at which heal ended all faults
	// optedOut reports that the namespace has lost its label.
	optedOut bool
	nodes    []*node
	pods     []*pod // the pods that have a process or an object
	enrolls  []*Enroller
	// reconciler makes the Reconciler of an Enroller.
	reconciler func(*Enroller) Reconciler
	// real reports that the Reconciler is the real enroll.
	real       bool
	remembered remembered // the slots that the model of enroll remembers
	// read has the Leases that conditions of pods name.
	read map[string]bool
	// gathered has the runs whose pods wait at a barrier.
	gathered []*run
	// sharded is the number of shards in the template of the sharded workload; zero without
	// such a workload.
	sharded int
	// mapped has the Jobs with shards. All Jobs but the last are deleted, and the last Job may be
	// deleted, too.
	mapped []shardedJob
	// locals has the pods whose programs use the local API.
	locals []*localPod
	// ledgers has what the world knows about each Variable of the pods in locals. The field "silent"
	// reports that programs send no more requests about these Variables.
	ledgers map[string]*ledger
	silent  bool
	// joins reports that one call of a program may bid for several claims.
	joins bool
	// restores reports that a person restores the objects of an earlier instant. No pod has the
	// gate "readiness" then, because that gate cannot stop the application before the restore.
	restores bool
}

// remembered has the slots that had a Lease, each with the longest lease duration that a pod
// ever claimed. The method stamper.forget removes shards.
type remembered map[string]time.Duration

// New returns the world of a seed. The caller must be in a synctest bubble. For each [Enroller] the
// function "enroll" returns the Reconciler that the Enroller runs.
func New(ctx context.Context, seed uint64, enroll func(*Enroller) Reconciler) *World {
	w := &World{Engine: engine.New(ctx, seed), reconciler: enroll, remembered: remembered{}, read: map[string]bool{}}
	w.api = apiserver.New(w.Engine, w.stored)
	w.checks = newChecks(w.Engine)
	w.calm = true
	return w
}

// stored judges a stored write of a Lease. An update of a Lease that matters to enroll wakes enroll.
func (w *World) stored(by, lease string, sent time.Duration, before, after apiserver.Version) {
	w.checks.leaseStored(by, lease, sent, before, after)
	checkOpened(w, by, lease, sent, before.Lease, after.Lease)
	if before.Body != nil && restamped(before.Lease, after.Lease) {
		w.api.Inform()
	}
}

// end stops all processes, and waits for their goroutines.
func (w *World) end() {
	w.Do(func() {
		for _, p := range w.pods {
			for _, a := range p.agents {
				a.Die()
			}
			p.order.endWait()
			for _, c := range p.containers {
				for _, s := range c.shims {
					s.die()
				}
			}
		}
		for _, n := range w.nodes {
			for _, t := range n.tenants {
				t.crash()
			}
		}
		for _, e := range w.enrolls {
			e.Die()
		}
		w.Stop()
	})
	w.Group.Wait()
	// Some goroutines of the product outlive the call of Run that started them. Such a goroutine
	// may still wait for the random tick of its last request (package apiserver).
	<-time.After(time.Millisecond)
}
