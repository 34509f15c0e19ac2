// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package barrier waits until a given number of pods of one run have arrived at the barrier. The
// package runs in an init container, or in the agent that serves the local API. The barrier has
// as many Leases as pods must arrive. A pod arrives by acquiring any one of these Leases, and
// renews that Lease while it waits.
//
// # The guarantee
//
// [Run] returns nil only after the first Lease has shown that the barrier is open for the given
// number of pods. Only the holder of the first Lease opens the barrier, by a write that replaces
// exactly the state that the holder knows. Before this write, all other Leases must have holders,
// and no two holders may have the same pod name. Each of these holders must have renewed its Lease
// within the last lease duration. For each Lease, the holder of the first Lease counts that duration
// from its own last read that did not show the latest renewal yet. Reads are consistent, so this
// renewal is no older than that read.
//
// No agent closes a barrier: agents add the record that the barrier is open, but never remove this
// record. A Lease of a barrier has the run in its name, so pods of two runs never use the same
// Lease. At an open barrier, each later pod of the run goes on after its first read of the first
// Lease. A silent watch delays a pod by no more than twice the time between two renewals. If enough
// pods live, the barrier opens: the Lease of a dead pod expires, and a pod that has no Lease
// acquires it.
//
// # Clocks
//
// The package measures two times by CLOCK_BOOTTIME, which goes on in suspend. The first is the time
// for which a proof of life stays valid. The second is the time that a pod waits before the pod
// takes the Lease of a dead holder. The package compares no time in a Lease with a clock. Timers of
// Go only pace the requests.
//
// # What is not guaranteed
//
// A pod that has arrived may have been dead for up to a lease duration when the barrier opens.
// If the opening write is delayed, or its sender is frozen just before that write, the arrived
// pod may have been dead for longer. A paused virtual machine counts no time. Each pod starts when
// that pod learns that the barrier is open, and a pod that is cut off learns this late.
//
// Rejected: a sidecar that waits, which would stay to the end of the pod; all arrivals in one
// Lease, whose writes conflict and speak for other pods; barriers of Deployments, which would delay
// nothing after the first opening; a barrier that closes again, whose every answer needs a round: a
// pod can have eight barriers instead.
//
// The package does not use agent/elector. An arrival never runs an application, so a pod may take a Lease
// that names itself at once; in an elector that would be a bug, because a child could live under it.
package barrier
