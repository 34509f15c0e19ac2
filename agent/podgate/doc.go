// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package podgate contains the gates outside of the application's containers. One
// stand-in receives grants and sends reports for the whole pod, instead of the shims.
// The agent's loop is the same as with shims.
//
// # The guarantee
//
// [Pod]: the application's containers start only after the grant of the slot. The agent's
// process ends if the slot is lost or yielded, or if no renewal succeeds before the drain has to
// begin. Because of the exit code, the kubelet then restarts every container of the pod
// (KEP-5532). The stand-in never reports that a hold is over: it does not see the application,
// so nothing proves that the application is dead. So the agent does not release the Lease, and
// the Lease expires. A new agent process resumes a hold only if the note of that hold exists.
//
// [Readiness]: a hold is over once the API server has stored that the pod is not Ready. Before
// that, a new agent process neither acquires a slot nor reports that an earlier hold is over.
//
// # What is not guaranteed
//
// No process in the pod enforces the deadline. With [Pod] the kubelet restarts the containers,
// which takes seconds. The time from the beginning of the drain to the end of the lease is left
// for that restart. If the kubelet is dead or slow, the application runs on.
// With [Readiness] the application runs on in any case, and serves clients that know the pod's
// address.
//
// # Clocks
//
// The clock is CLOCK_BOOTTIME, as in package gate.
//
// Rejected: a startup probe on the sidecar instead of the waiting init container
// (kubernetes#137146); a release after a restart of all containers, or after the sidecar's SIGTERM,
// because a kubelet that has lost track of its containers invents a status.
package podgate
