// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package standin has the gates that are not in the application's containers.
// Where a shim would report and be granted, one stand-in does so for the whole
// pod; the agent's loop is the same.
//
// # What each guarantees
//
// [Pod]: the application's containers start only after the slot was granted.
// When it is lost, yielded, or was not renewed until the drain has to begin, the
// agent's process ends with a code on which the kubelet restarts every container
// of the pod. What was granted is never said to be over: nothing here sees the
// application, so nothing proves that it is dead, and the slot expires. A hold
// that an earlier agent process began goes on only if the note of it is there.
//
// [Readiness]: a hold is over when the API server has stored that the pod is not
// Ready, and not before. A new agent process holds nothing, and takes nothing for
// over, until that is stored.
//
// # What they do not guarantee
//
// Nothing in the pod enforces the deadline. With [Pod] the kubelet does what it
// is asked to, in its own time (seconds, between the drain's beginning and the
// end of the lease); a kubelet that is dead or slow lets the application run on.
// With [Readiness] the application runs on anyway, and who has learnt the pod's
// address goes on talking to it.
//
// # Clock
//
// CLOCK_BOOTTIME, as in package gate.
package standin
