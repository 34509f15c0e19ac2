// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package wait lets a pod wait before its application starts, or during a call of the local API: until
// conditions on Leases have been met ([Conditions]), or until enough pods of one run have arrived at a
// barrier ([Barrier]). Neither is a claim, and no hold depends on them.
//
// A condition is met by one state of its Lease, once. On a key of a once claim: the done keys contain the
// key (the Lease keeps the 50 that were done last). On a slot: the state names a holder with a hold that has
// served since its acquisition, and the wait has seen a renewal of that hold, because a dead holder leaves
// its time of serving in the Lease. On the shards of a Job: the done keys of each shard contain the run in
// the stamp of shard 0; if a stamp names another run or a later epoch, the wait begins again at shard 0.
// Conditions are waited for one after the other. No state is missed between a read and a watch, unless the
// API server has forgotten the version of the read, and a silent watch only delays. After a condition has been met, nothing watches it: the holder may die before
// the pod goes on. A client that is no agent may leave the annotations of an earlier hold in a Lease; if its
// wall clock is behind, its own renewal then meets the condition.
//
// A barrier has as many Leases as pods must arrive. A pod arrives by acquiring any one of them, and renews
// it while it waits. Only the holder of the first Lease opens the barrier, by a write that replaces exactly
// the state that it knows. Before, all other Leases must have holders with distinct pod names, and each must
// have been renewed within the last lease duration, counted from the last read that did not show the
// latest renewal yet. No agent closes a barrier, and a Lease of a barrier has the run in its name. If enough
// pods live, the barrier opens: the Lease of a dead pod expires, and a pod without a Lease acquires it. A pod
// that has arrived may have been dead for a lease duration when the barrier opens, and longer if the opening
// write is delayed, or if its sender or its machine was paused.
//
// The barrier measures the age of a proof of life, and the wait for a dead holder's Lease, by
// CLOCK_BOOTTIME. All other timers only pace requests and notices. No time in a Lease is compared with a
// clock.
//
// Rejected for conditions: the readiness of a Deployment or a Service, for which the pod's account would
// need rights on objects that are not ours; conditions that count after the start, too, because each
// handover of a database would stop the pods that wait for it. For barriers: a sidecar that waits, which
// would stay to the end of the pod; all arrivals in one Lease, whose writes conflict and speak for other
// pods; barriers of Deployments, which would delay nothing after the first opening; a barrier that closes
// again, whose every answer needs a round: a pod can have eight barriers instead; the driver of
// agent/elector, because an arrival never runs an application, so a pod may take a Lease that names itself at
// once. In an elector that would be a bug, because a child could live under it.
package wait
