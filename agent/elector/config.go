// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import "github.com/metaparticle-io/metaparticle/agent/lease"

// Claim has the slots of a claim, and the pod that claims them.
type Claim struct {
	// Slots are the names of the Leases, in the order in which they are acquired. The list may be
	// empty.
	Slots []string
	// Any reports that the claim needs only one of the slots. If Any is false, the claim needs
	// all slots.
	Any bool
	// First reports that no earlier agent process has competed with the pod's volume. So no child of
	// this machine has a slot, and a claim with Any may acquire a slot before the claim has read all
	// Leases.
	First bool
	// Readers is the size n of a read-write lock: at most n readers may hold the lock at once.
	// Readers is zero for any other claim. The first slot is the intent. Each reader needs any
	// one of the first n slots after the intent. A writer ([Facts.Writes]) needs the intent and
	// all other slots, even if these are more than n.
	Readers int
	// Shards is the number of shards into which the work is divided; zero for slots without a
	// stamp. The claim acquires and keeps only slots whose stamp admits this number.
	Shards int
	// Run is the run whose shards the pod works through, each until its success; empty for other
	// pods. The claim acquires no slot whose Lease has this run among its done keys.
	Run string
	// Self describes the pod that claims.
	Self lease.Self
	// OwnKernel reports that the pod may run in a virtual machine of its own. An earlier virtual
	// machine of the pod may still run. So a Lease with another boot id does not prove that the
	// children of that boot are dead.
	OwnKernel bool
	// OwnProofs reports that [Outcome.Proven] is true only for holds that the present agent
	// process began. So a later process never wrongly takes an unproven hold of this process
	// for a proven one.
	OwnProofs bool
	// Random is the only source of randomness.
	Random interface{ Uint64() uint64 }
}
