// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package variable reads and writes the Variables that the programs of a pod use. In each agent
// one loop writes each Variable, so only other pods cause conflicts. One write of the loop may
// carry out several adds.
//
// # The guarantee
//
// Each write is a compare-and-swap: a PUT with uid and resourceVersion. So each acknowledged
// action took effect exactly once, and all pods see the actions in the same order.
//
//   - An action whose write has no answer is not repeated, unless the Variable proves that the
//     write was not stored. Without a proof the outcome is [Unknown].
//   - A PUT is sent again with the same bytes while the Variable has the version that the PUT
//     replaces. Of several such PUTs one is stored at most.
//   - Each write has a name. A Variable with that name proves that the write was stored. A write
//     that adds with a key is proven by the key, too, while the key is kept.
//   - An add with a kept key changes nothing, and has the first result.
//   - A write under a hold has the lock, epoch and token of that hold, which the hold's own keeper
//     tells before each attempt. The token of the Variable is only compared with them.
//
// # Kept keys
//
// The Variable keeps 64 keys. If it is full, a new key drops a key of the pod that has most of
// them. So a busy pod never drops the newest key of another pod. Without a further rule, keys
// of pods that have ended would stay for ever. So a key counts as old after 1000 newer keys of
// any pods, and old keys are dropped first.
//
// # What is not guaranteed
//
// A person who edits or deletes a Variable can break each of these guarantees. A key that the
// Variable no longer keeps counts as new. The order of actions of different pods is arbitrary.
package variable
