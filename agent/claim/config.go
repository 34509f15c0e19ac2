// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import "github.com/metaparticle-io/metaparticle/agent/lease"

// Config names the claimed slots, and the pod that claims them.
type Config struct {
	// Slots are the names of the Leases, in the order in which they are acquired. The list may be
	// empty.
	Slots []string
	// Any reports that any one of the slots is enough. Otherwise the claim needs all of
	// them.
	Any bool
	// Shards is the number of shards of the pod's work; zero for slots without a stamp. The
	// claim acquires and keeps only a slot whose stamp admits this number.
	Shards int
	// Run is the run of a pod whose shard ends with a success; empty for pods that keep running.
	// The claim acquires no slot that has the run among its done keys.
	Run string
	// Self is the pod.
	Self lease.Self
	// OwnKernel reports that the pod may run in a virtual machine of its own. Another
	// boot id is then no proof that the children of the earlier boot are dead.
	OwnKernel bool
	// OwnProofs reports that a proof of death never concerns a hold of an earlier agent process.
	// Then no later process can believe in a proof that this one has made wrong.
	OwnProofs bool
	// Random is the only source of randomness.
	Random interface{ Uint64() uint64 }
}
