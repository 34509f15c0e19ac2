// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package stamp decides which stamps enroll writes on the Leases of one workload's shards.
// The package is pure: it sends nothing, and the caller passes which Leases have expired.
//
// # The guarantee
//
// Two pods that expect different numbers of shards never hold shards at the same time. An agent
// acquires a Lease only while the Lease's stamp is open, and has the number and the run that the
// agent's pod expects. The caller reads all Leases of the group in one consistent list. Each write
// that [Next] returns replaces exactly the version of the Lease in that list.
//
//   - The stamp of shard 0 is the decision of the group: a number of shards, a run, and an
//     epoch. A change of the number or of the run begins with a closed stamp of the next epoch
//     on the Lease of shard 0.
//   - Then each other Lease of the group gets the same closed stamp, even the Lease of a shard
//     beyond the new number. Each such write changes the version of its Lease. So
//     a delayed write of an agent, or of another enroll with an older list, fails.
//   - The holder of a closed Lease drains, and releases. If a closed Lease has expired, enroll
//     removes its holder, and leaves the stamp closed. The last holder cannot come back,
//     because no agent acquires a closed Lease.
//   - A Lease is opened only if each Lease of the list has the epoch of shard 0, and each
//     closed Lease has no holder. A closed Lease without a holder stays without a holder, so
//     the list may be old.
//
// Two processes may want different numbers at the same time. Suppose that one process opens a Lease
// by a delayed write. The write fails if the other process has already closed that Lease for its
// own decision. Otherwise, the other process finds the Lease open, closes it, and waits until the
// Lease has no holder. So two such processes delay each other, and break no rule.
//
// # Clocks
//
// The caller measures on its own clock how long a Lease has not changed. The caller counts the
// Lease's duration from when the caller first saw the Lease's version, as a standby does.
//
// # What is not guaranteed
//
// The package does not choose the number. If a person removes the stamp of shard 0, all holders of
// the group release once, and enroll then opens the Leases again. The same happens if a person
// deletes the Lease of shard 0 while no pod holds that Lease.
package stamp
