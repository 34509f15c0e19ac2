// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package turn decides which revision holds during a rollout. The package is pure: it sends
// nothing, starts no goroutine, and takes the time as an argument.
//
// If a pod's revision is newer than the holder's, the pod is not Ready, and asks for its turn.
// The holder yields to that pod. The new holder is Ready only after its application has served
// for [Proof]. A turn that fails gives the slot back to the pod that yielded. Then the newer
// revision waits for its next turn, longer each time. So a rollout of a broken revision stalls,
// and the old revision serves.
//
// # The guarantee
//
// A holder yields to a revision at most four times in the first hour, and once in each later
// hour. The yielding pod counts each turn in its releasing write, even if the asker then cannot
// acquire. After a revision has been proven for [Forget], its count begins at zero again.
//
// No pod waits longer than [LastResort] for a free slot because of turns.
//
// # Clocks
//
// Each span is measured by one agent, on its own clock. A holder measures the wait until the
// next turn from the beginning of its hold, so a restart of the agent only prolongs the wait.
// The times in the Lease are for people.
//
// # What is not guaranteed
//
// The package decides whether an agent tries to acquire a slot. Packages elector and lease decide
// whether the agent may have that slot. The package also decides whether a pod may be Ready. The
// controller continues the rollout only if the new pods are Ready. Once no old pod is left, nothing
// protects a rollout. Pods of two workloads take no turns with each other, and neither do pods of
// an unknown revision. A standby takes no turn if the holder's agent writes no [Rollout]. Without
// turns each standby is Ready while the holder serves.
//
// Rejected: a yield without a named successor, because with two of three standbys old, an old pod
// would take the slot back; a new pod that is Ready at first, for which the controller deletes an
// old pod before its turn can fail; the field paused of a Deployment, for which agents would need
// rights on workloads; a fixed end of a hold without a turn, from which nobody would gain anything
// when no old pod is left.
package turn
