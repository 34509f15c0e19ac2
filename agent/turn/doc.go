// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package turn decides which revision holds during a rollout. The package is pure: it sends
// nothing, starts nothing, and takes the time as an argument.
//
// A pod of a newer revision than the holder's is not Ready, and asks for its turn. The
// holder yields to that pod. The new holder is Ready only after it has served for
// [Proof]. A turn that fails gives the slot back to the pod that yielded. Then the
// revision waits for its next turn, longer each time. So a rollout of a broken version
// stalls, and the old version serves.
//
// # The guarantee
//
// A holder yields to a revision at most four times in the first hour, and once in each
// later hour. The yielding pod counts turns in its releasing write, so an asker that
// cannot acquire is counted, too. After a revision has been proven for [Forget], its count
// begins anew.
//
// A pod is never kept from a free slot for longer than [LastResort].
//
// # Clocks
//
// Every span is measured by one agent, on its own clock. The holder measures the wait
// between two turns from the beginning of its hold, so a restarted agent only lengthens
// the wait. The times in the Lease are for people.
//
// # What is not guaranteed
//
// The package decides whether an agent wants a slot, and what a rollout demands of its
// pod's readiness. Packages claim and lease decide
// whether the agent may have that slot. Nothing protects a rollout after its last old pod
// is gone. Pods of two workloads take no turns, nor do pods of an unknown revision. A
// standby takes no turn if its holder's agent writes no [Rollout]. Without turns each
// standby is Ready while the holder serves.
package turn
