// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leave decides how a holder leaves its Services before its application stops. The
// package is pure: it sends nothing, starts nothing, and takes the time as an argument.
//
// A port that changes hands between an application and its agent refuses connections for a
// moment. So the port changes hands only in a pod to which no node sends connections any
// more. The holder says in its Lease that it leaves soon. The Ready standbys of its
// workload answer with an offer in the next Lease. If enough of them offer, the holder is
// not Ready, and names the pod that follows, which is not Ready either. Both serve on for
// the endpoint delay. Then the holder says that it serves no more, so that the standbys
// hold new connections. A moment later the application stops.
//
// # The guarantee
//
// A holder leaves only if a Ready pod has offered to stay. Without an offer the application
// stops after [Answers], or later if the API server is slow. Each wait is bounded: a write that the API server does not store
// delays the end by no more than [Stored]. In a pod that is being deleted, all of it takes
// at most half of the grace that the preStop hook leaves.
//
// # Clocks
//
// Every instant is of the agent's own clock.
//
// # What is not guaranteed
//
// A pod that has offered may vanish. A node that learns of an endpoint later than the
// endpoint delay still sends connections. The package decides nothing about the slot:
// whatever ends a hold at once also ends the wait.
package leave
