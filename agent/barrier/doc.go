// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package barrier waits, in an init container, until so many pods of one run have arrived at
// the barrier of the pod. The barrier has a Lease for each of these pods. A pod arrives by
// acquiring any one of the Leases, and renews that Lease while it waits.
//
// # The guarantee
//
// [Run] returns nil only after the first Lease showed that the barrier was opened for the number
// of pods. The holder of the first Lease alone opens the barrier, by one write, which replaces
// exactly the state that the holder knows. Before the write is sent, each other Lease has
// had a holder of its own, a pod of another name. Each of these holders has written its Lease
// within the last lease duration. The holder counts that duration from the sending of a read that
// did not show the write yet. So the write is no older than that read.
//
// No agent closes a barrier: an agent adds the record and never removes it. A Lease of a barrier
// has the run in its name, so pods of two runs never see the same Lease. An open barrier lets
// each later pod of its run through by the first read. No silent watch delays a pod for longer than
// two periods of renewals. With so many living pods the barrier
// opens: the Lease of a dead pod expires, and a pod that lacks a Lease acquires that Lease.
//
// # Clocks
//
// The duration of a proof, and of a wait for a dead holder, is counted by CLOCK_BOOTTIME, so a
// suspended machine counts, too. No time in a Lease is compared with a clock. Timers of Go
// only pace the requests.
//
// # What is not guaranteed
//
// A pod that arrived may be dead when the barrier opens, for a lease duration at most. The
// proof counts up to the sending of the write. A process that is frozen just then, or a delayed
// request, opens the barrier later. A paused virtual machine counts no time. Pods learn of the opening
// one after the other: a pod that is cut off learns of it later, and then starts.
package barrier
