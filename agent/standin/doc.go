// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package standin contains the gates outside of the application's containers. One
// stand-in receives grants and sends reports for the whole pod, instead of the shims.
// The agent's loop is the same as with shims.
//
// # What each gate guarantees
//
// [Pod]: the application's containers start only after the grant of the slot. The
// agent's process ends if the slot is lost or yielded, or if the slot is not
// renewed before the drain has to begin. The exit code makes the kubelet restart
// every container of the pod. The stand-in never reports a hold as over: it does
// not see the application, so nothing proves that the application is dead. The slot
// expires. A new agent process resumes a hold only if the note of that hold exists.
//
// [Readiness]: a hold is over once the API server has stored that the pod is not
// Ready. Until that is stored, a new agent process holds no slot, and reports no
// earlier hold as over.
//
// # What they do not guarantee
//
// Nothing in the pod enforces the deadline. With [Pod] the kubelet restarts the
// containers in its own time. The restart takes seconds. The time from the
// beginning of the drain to the end of the lease is left for the restart. A dead or
// slow kubelet lets the application run on. With [Readiness] the application runs
// on anyway, and serves clients that know the pod's address.
//
// # Clock
//
// The clock is CLOCK_BOOTTIME, as in package gate.
package standin
