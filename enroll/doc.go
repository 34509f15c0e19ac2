// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package enroll gives gated pods what they need to compete for their slots: the
// Leases, and Roles that name them. Each service account has one Role for its first 500
// slots, and another one for each further 500 slots.
//
// Conditions: a further Role lets the account read at most 500 Leases for which its pods wait, by
// name. A condition is no claim: enroll creates no Lease for a condition, and sweeps a Lease that
// only conditions name. A Role for conditions lets no pod hold a slot. So, unlike a Role for slots,
// a Role for conditions does not show that a Lease may have been held.
//
// Variables: a further Role lets the account's agents use at most 500 Variables, by name. Enroll
// creates a Variable without a value before a Role first names it, and never changes or deletes a
// Variable.
//
// Package step decides; this package reads, and carries the decisions out.
//
// Guarantee: enroll never frees a slot that an agent may hold. Enroll creates the Lease of each
// slot with the holder [step.Unknown] and the longest duration ever claimed under the Lease's name. So
// all pods wait for this duration. Enroll immediately frees a new Lease, but only if no Role ever
// named the Lease: then no agent can have held the Lease. Enroll decides this by a consistent list
// of the Roles, made after the Lease exists.
//
// Next Leases: a slot for which pods of several revisions may compete has a next Lease, too. No
// pod gets a slot by a next Lease. So enroll creates the next Lease without a holder, and the
// absence of a next Lease says nothing about the holder of the slot. The name of a next Lease
// follows from the name of the slot, so a Role that remembers the slot names both Leases.
//
// Hints: enroll writes [api.AloneAnnotation] on the next Lease of a slot whose workloads declare one
// replica together, so that a leaving holder waits for nobody's answer. The hint follows the declared
// number and not the living pods, because a rollout of one replica would otherwise cost two writes. So
// during such a rollout the hint stays, although two pods live: the pod of the other revision writes a
// word of its own. A wrong or late hint costs answers, and no rule of safety reads it.
//
// People: a person who holds a lock that no pod claims makes its Lease, with the holder
// [api.UnknownPerson]. No Role remembers that person, so enroll never frees such a Lease. If pods claim
// the lock, enroll makes the Lease last as long as one of its own.
//
// Sweep: enroll deletes an unclaimed Lease once this process has seen the Lease unchanged for a
// whole lease duration. The Lease of a lock that no Role names, so that only people have used it,
// must also be a day old by its renew time, or have been seen unchanged for a day. A paused Lease stays, and so does a Lease with a lasting record. Such a
// record has the done keys of a once claim with a name, or shows that a barrier is open. Enroll
// deletes the Lease, and the next Lease with it, before enroll removes the names from the Roles. An
// account that no longer claims a Lease also loses its right only after a lease duration. While
// other accounts claim the Lease, at least one Role remembers the Lease and its longest duration.
//
// Cost: a snapshot takes time and memory in proportion to the namespace's pods,
// workloads and slots. If nothing is to be done, enroll sends the API server no
// request. If the Roles of an account have no room for a slot, the slot costs no request either.
// Enroll makes no Lease for such a slot, unless a Role names the Lease. A new Lease costs two
// writes, and a new next Lease one write, with its hint. A hint costs a write when a workload is scaled
// from one replica to more, or back. Each Role that is to name new Leases costs one write,
// too. A Role for conditions costs one write whenever the conditions of its account change.
//
// Fairness: a reconciliation ends soon after [patience], and the next reconciliation continues the
// work. Meanwhile the other namespaces have their turns. So many slots of a namespace delay the
// slots of other namespaces for seconds at most.
//
// Enroll gives rights only on Leases that a claim can name, and on their next Leases.
// Enroll reads conditions only from the container that waits for them, because nobody can
// change that container. In a namespace that did not opt in, enroll ignores the marks of a
// pod without a gate. So a user who may annotate pods cannot choose the rights of their
// service accounts.
//
// Clock model: no rule of safety compares a time of another machine. Enroll measures
// durations on the clock of the [Reconciler], from when this process first saw
// the Lease's version.
//
// Safety needs no state in memory: the process may end after any step, and two processes may run at
// the same time. Each write is a compare-and-swap or a creation. The comments in the code say what
// a crash between two writes leaves behind.
//
// Not guaranteed: that a slot has one holder after a user has deleted a held Lease and the Roles
// that name it. Those objects are the only trace of the holder. A Lease that enroll did not make
// lacks enroll's label. Agents use such a Lease as it is, and enroll does not free, label or sweep
// the Lease. The policies on Leases do not restrict the maker of such a Lease.
//
// Rejected for shards: the number of shards in the Leases' names, because pods of two numbers would
// have no Lease in common; to open the Leases when no old pod exists, because a pod deleted by
// force is gone from the API before its application ends. Rejected for words: the slot's own Lease
// instead of the next Lease, because a word would conflict with renewals, and make all standbys
// wait anew. Rejected for pull secrets: a cluster-wide right to read Secrets, the most valuable
// target of the cluster; no right by default, with which the first private image of every namespace
// fails.
package enroll
