// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leave decides how a holder leaves its Services before its application stops. The
// package is pure: it sends nothing, starts no goroutine, and takes the time as an argument.
//
// When a port passes from an application to its agent, or back, the port refuses connections for
// a moment. So a port passes only in a pod to which no node sends connections any more.
//
// The holder announces in its Lease that its pod leaves soon. The Ready standbys of its
// workload answer with an offer in the next Lease. If enough standbys offer, the holder becomes
// not Ready, and names its successor, which becomes not Ready, too. Both pods still accept
// connections for the endpoint delay, until no node sends any. A successor that has made an offer
// tells in the next Lease that it is prepared, and the holder waits for that. Then the holder
// announces that its application no longer serves, so all standbys let new connections wait. The
// standbys beside the successor tell that they are prepared, too. A moment later the application
// stops.
//
// # The guarantee
//
// A holder leaves only if a Ready pod has offered to stay. Without an offer the application
// stops after [Answers], or later if the API server is slow. Each wait is bounded: a write that
// the API server does not store delays the application's stop by no more than [Stored]. A successor
// that is not prepared delays the stop by no more than [Patience]. In a pod that is being deleted, the
// leave takes at most half of the grace that remains after the preStop hook.
//
// # Clocks
//
// Every instant is a time of the agent's own clock.
//
// # What is not guaranteed
//
// A pod that has offered may vanish. If a node learns of the leave only after the endpoint
// delay, that node still sends connections to both pods. The holder waits only for a successor that
// has made an offer and still gets connections. The package decides nothing about the slot. If the
// hold must end at once, for example because the slot is lost, the leave ends, too.
//
// Rejected for a deleted standby that lingers: a preStop hook of the agent, because its time is
// subtracted from the agent's grace, and it would delay the agents of holders, which have a slot to
// release.
package leave
