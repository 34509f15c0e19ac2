// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import "github.com/metaparticle-io/metaparticle/agent/lease"

// Config says what is claimed, and by which pod.
type Config struct {
	// Slots are the names of the Leases, in the order in which they are acquired.
	Slots []string
	// Any: one of the slots is enough, whichever it is. Otherwise all are needed.
	Any bool
	// Self is the pod.
	Self lease.Self
	// OwnKernel: the pod may run in a virtual machine of its own. Another boot id is
	// then no proof that the children of the earlier boot are dead.
	OwnKernel bool
	// Random is the source of all that is random.
	Random interface{ Uint64() uint64 }
}
