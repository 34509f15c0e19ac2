// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leave decides how a hold ends, from its announcement to the stop of the application: whether
// an answer permits the end, and how the pod leaves its Services. It is pure, as package turn is.
//
// A port refuses connections for a moment when it passes between an application and its agent. So it passes
// only in a pod to which no node sends connections any more. The holder announces the end, and standbys answer
// that they stay Ready and forward, that they can take the slot, or either. With enough answers the holder and
// its successor become not Ready, and accept connections for the endpoint delay. Once the successor says that
// it is prepared, the holder announces that it no longer serves. The other standbys let new connections wait,
// say that they are prepared, and the application stops.
//
// Guaranteed: an end that needs an answer ([Turn], [Hang]) is withdrawn without one. A holder leaves its
// Services only if a Ready pod stays. Each wait is bounded, also by half of the remaining grace of a deleted pod.
//
// Not guaranteed: a pod that has answered may vanish. A node that learns of the leave later than the endpoint
// delay still sends connections. If the slot is lost, the hold ends at once, and the leave with it.
//
// Rejected: a preStop hook of the agent for a deleted standby, because it would take its time from the agent's
// grace, and delay the release by a holder.
package leave
