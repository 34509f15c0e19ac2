// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package stamp decides which stamps enroll writes on the Leases of one workload's shards.
// The package is pure: it sends nothing, and the caller passes which Leases have expired.
//
// # The guarantee
//
// Pods of two numbers of shards never hold at once. An agent acquires a Lease only while its
// stamp is open and has the pod's own number. Each write of [Next] replaces exactly the
// version of a Lease that the caller has read. The caller reads all Leases of the group in one
// consistent list.
//
//   - The stamp of shard 0 is the decision of the group: a number, and its epoch. A change
//     of the number begins with a closed stamp of the next epoch on this Lease.
//   - Then each other Lease of the group gets the same closed stamp, whatever its number. The
//     write changes the version, so that a delayed write of an agent, or of another enroll
//     with an older list, fails.
//   - The holder of a closed Lease drains, and releases. A Lease that has expired is freed
//     while its stamp stays closed. After that, its last holder cannot come back.
//   - A Lease is opened only if each Lease of the list has the epoch of shard 0, and each
//     closed Lease has no holder. A closed Lease without a holder stays
//     without a holder, so the list may be old.
//
// A delayed write that opens a Lease fails if the next decision has already closed that
// Lease. If the write succeeds before, the next list shows the Lease as open, and the next
// epoch waits for its holder. So two processes with different numbers delay each other, and
// break no rule.
//
// # Clocks
//
// The caller measures on its own clock how long a Lease has not changed. As a standby does,
// the caller counts from when it saw the version, for the duration in the Lease.
//
// # What is not guaranteed
//
// The package does not choose the number. A person who removes a stamp, or a Lease that is
// not held, makes all shards stand still once.
package stamp
