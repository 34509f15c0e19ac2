// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leave decides how a holder leaves its Services before its application stops. The
// package is pure: it sends nothing, starts nothing, and takes the time as an argument.
//
// A port that passes from an application to its agent, or back, refuses connections for a
// moment. So a port passes only in a pod to which no node sends connections any more. The
// holder announces in its Lease that its pod leaves soon. The Ready standbys of its
// workload answer with an offer in the next Lease. If enough standbys offer, the holder
// becomes not Ready, and names the pod that follows, which becomes not Ready, too. Both
// pods still take connections for the endpoint delay, until no node sends them any. Then
// the holder announces that its application serves no more, so the standbys let new
// connections wait. A moment later the application stops.
//
// # The guarantee
//
// A holder leaves only if a Ready pod has offered to stay. Without an offer the
// application stops after [Answers], or later if the API server is slow. Each wait is
// bounded: a write that the API server does not store delays the end by no more than
// [Stored]. In a pod that is being deleted, the leave takes at most half of the grace
// that remains after the preStop hook.
//
// # Clocks
//
// Every instant is of the agent's own clock.
//
// # What is not guaranteed
//
// A pod that has offered may vanish. A node that learns of the leave only after the
// endpoint delay still sends connections. The package decides nothing about the slot:
// whatever ends a hold at once, such as a lost slot, also ends the leave.
package leave
