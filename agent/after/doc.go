// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package after makes an init container wait until each condition of the pod has been met once. A
// condition on a once claim names a Lease and a key, and is met once that key is done. A condition
// on a slot names a Lease, and is met once the Lease's holder serves. A condition on shards names a
// Job, and is met once all shards of the Job are done in one run. Package barrier uses the same
// wait for the record of an open barrier. A condition is no claim, and the package writes no Lease.
//
// # The guarantee
//
// [Run] returns nil only after each condition has been met. Run waits for the conditions one after
// the other, in their order. A condition on a key is met by one state of the Lease, if its done
// keys contain the key. For a condition on a slot, one state must name a holder with a hold. In
// this state, the time of serving must not be before the time of the acquisition. In addition, the
// wait must have seen a renewal of the same hold. A dead holder leaves its time of serving in the
// Lease, and only a renewal shows that a holder lives.
//
// Shards are judged one after the other. A shard is done if its Lease has the same stamp as shard
// 0, and if its done keys contain the run of that stamp. If the pod names a run, only that run
// counts. If a Lease's stamp names another run, the wait begins again at shard 0. The same happens
// if the epoch in the stamp, a count of the stamp's changes, is greater than that of shard 0.
//
// The wait misses no state between a read and a watch. Each watch begins at the version of the
// read, and each read is consistent. Each watch ends after at most 24 minutes, and then the wait
// reads the Lease again. So a silent watch delays the pod, but does not block it for ever.
//
// # Clocks
//
// The package takes instants from Go's monotonic clock, which stops in suspend. Those instants
// only pace requests and delay notices. No time in a Lease is compared with a clock. The time
// of serving and the time of the acquisition both come from the holder's wall clock.
//
// # What is not guaranteed
//
// After a condition has been met, the wait no longer watches it: the holder may die before the pod
// goes on. A client that is no agent may acquire a Lease, and leave the annotations of an earlier
// hold there. If the wall clock of that client is behind, the earlier hold's time of serving may
// lie after the client's acquisition. Then a renewal by the client meets the condition. The Lease
// of a once claim keeps only the 50 keys that were done last. No write of an Event
// delays the wait, and an Event may appear twice after a lost answer.
//
// Rejected: a condition on the readiness of a Deployment or a Service, for which the pod's account
// would need rights on objects that are not ours; conditions that count after the start, too,
// because each handover of a database would stop the pods that wait for it.
package after
