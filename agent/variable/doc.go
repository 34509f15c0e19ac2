// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package variable reads and writes the Variables that the programs of a pod use. In each agent
// a single loop does all writes of a Variable, so only other pods cause conflicts. A single
// write of the loop may carry out several adds.
//
// # The guarantee
//
// Each write is a compare-and-swap: a PUT with uid and resourceVersion. So each acknowledged
// action took effect exactly once, and all pods see the actions in the same order.
//
//   - An action whose write has no answer is not repeated, unless the Variable proves that the
//     write was not stored. Without a proof the outcome is [Unknown].
//   - A PUT without an answer is sent again with the same bytes, while the Variable still has
//     the resourceVersion that the PUT replaces. At most one of these equal PUTs is stored.
//   - Each write stores its own name in the Variable. If the Variable has that name, the write
//     was stored. While the Variable keeps the key of an add, that key also proves that the
//     write of the add was stored.
//   - After a conflict the write may be stored, because a proxy may have sent the PUT twice. So the
//     loop looks for the name or the key of the write in the state that it reads next.
//   - An add with a kept key changes nothing, and returns the result of the first add with that
//     key.
//   - A write under a hold contains the lock, epoch and token of that hold. Before each attempt,
//     the loop requests these three values from [Action.Fence], and never takes them from the
//     Variable. The fence in the Variable serves only for a comparison.
//
// # Kept keys
//
// The Variable keeps 64 idempotency keys of adds. If the list is full, a new key drops a key of
// the pod that has most keys in the list. So a busy pod never drops the newest key of another
// pod. Without a further rule, keys of pods that have ended would stay for ever. So a key counts
// as old after 1000 newer keys of any pods, and old keys are dropped first.
//
// # What is not guaranteed
//
// A person who edits or deletes a Variable can break each of these guarantees. A hostile pod with a
// right on the Variable can record a false result for a key of another pod. If a proxy sends a PUT
// twice, and another pod writes before the loop reads, an add without a key may count twice. A key
// that the Variable no longer keeps counts as new. The order of actions of different pods is
// arbitrary.
//
// Rejected: an annotation of a Lease, or a ConfigMap, because only the schema of a custom resource
// judges every client's write; a fence that the agent takes from the Variable, by which each writer
// would seem to have the newest hold; an epoch that agents raise, because the API server would
// refuse everybody else; keys in the agent's memory, which die with it; keys in a status
// subresource, because one write must store the sum and its key.
package variable
