// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package after waits, in an init container, until each condition of the pod was met once.
// A condition names a Lease: a key of a once claim is done, or the holder of a slot serves. A
// condition on shards names the Leases of a Job's shards: all of them are done in one run. Package
// barrier also waits for the record of an open barrier.
// The pod itself claims nothing by a condition, and the package writes no Lease.
//
// # The guarantee
//
// [Run] returns nil only after each condition was met. The conditions are met one after the
// other, in their order. A key is met by one state of the Lease whose done keys contain that
// key. A serving holder is met by one state, too. That state has a holder with a hold. Its
// time of serving is not before the acquisition. In addition, the wait must have seen a
// renewal of that very hold. A dead holder leaves its time of serving in the Lease, and
// only a renewal shows that a holder lives.
//
// Shards are met one after the other. Each Lease has the stamp of shard 0, and the run of that
// stamp among its done keys. If a pod names the run, no other run counts. If a Lease has a later
// epoch, the wait begins again at shard 0.
//
// No state is missed between a read and a watch, because each watch begins at the version
// of the read. A read is consistent. Each watch ends after 24 minutes at most, and then the
// Lease is read again. So a silent watch delays the pod, but does not block the pod for ever.
//
// # Clocks
//
// The package takes instants from Go's monotonic clock, which stops in suspend. Those instants
// only pace requests and delay notices. No time in a Lease is compared with a clock. The time
// of serving and the time of the acquisition both come from the holder's wall clock.
//
// # What is not guaranteed
//
// A met condition is not watched any further: the holder may die before the pod goes on. A
// foreign elector leaves the annotations of an earlier hold in the Lease. Its
// renewals count as those of that hold if its wall clock is behind the time of serving.
// Once 50 further keys of a once claim are done, the Lease lacks the oldest key. Events are
// written beside the wait, and one may appear twice after a lost answer.
package after
