// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent runs the agent of a gated pod: stand by, hold, drain, stand by.
//
// Package claim decides about the Leases, package proof about children, package show
// about the pod's appearance. Package agent joins them. Its loop alone sends requests and
// waits for events. Standby, hold and drain are its states.
//
// # The guarantee
//
// The agent gives a grant only while every slot of the pod is held by the rules of
// package lease. No grant lasts longer than that. The agent releases a slot only when
// no child of its hold can be alive. Package proof says which reports prove that. A
// Lease of this pod with another boot id than today's is proof as well: a boot ends
// processes.
//
// Between an init container that succeeded and the container after it, the agent keeps a
// hold for a while though nothing runs under it. That needs no proof: only a release does.
//
// These facts prove nothing: a pod or a Lease that is gone, a SIGTERM to the agent, and
// the identity in a Lease. Without proof the agent neither renews nor releases the hold.
// This pod then waits for its end like every other pod.
//
// # Clocks
//
// Every decision is made by one clock that goes on while the machine sleeps. The loop
// reads the clock after each event: a standby's wait counts from when it saw something.
// A request counts from that instant, too, which is before the loop sends it. Go's timers
// only wake the loop. They stop in suspend, so the shim, not this package, keeps the
// deadline.
//
// # What is not guaranteed
//
// A pod may have no holder: while the API server is away no pod acquires. A grant may
// arrive late, or stay unused. Readiness, Events and metrics are written beside the loop,
// late if need be. They never delay a renewal.
package agent
