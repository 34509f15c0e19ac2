// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
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
