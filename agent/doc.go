// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent runs the agent of a gated pod. The agent stands by, holds, drains, and
// stands by again.
//
// Package elector decides about the Leases, package gate about children, package status about the
// pod's status. Package agent connects these packages by a loop. Only the loop waits for events,
// and only the loop and package status begin requests. Three go on by themselves then, with a bounded number of
// attempts: the words of a standby, the grace of a deletion, and the condition of a disruption. The loop's states are standby, hold and drain.
//
// # The guarantee
//
// The agent gives a grant only while the pod holds every slot by the rules of package lease. No
// grant outlasts the possession of these slots. The agent releases a slot only when no child of
// the hold can be alive. [gate.Proof] defines which reports prove that. If a Lease of
// this pod has the id of an earlier boot, that id is proof as well, because a boot ends all
// processes. In a pod that may have a kernel of its own, such an id proves nothing.
//
// After an init container has succeeded, the agent keeps the hold until the next container
// starts, but for five minutes at most. Meanwhile no child runs under the hold. Only a release
// needs proof, so the agent may keep the hold without proof.
//
// No proof of death follows from these facts: a pod or a Lease is gone, the agent got a SIGTERM,
// a Lease names this pod. While an ended hold lacks proof, the agent neither renews nor releases
// that hold. Then this pod waits until the Lease expires, like every other pod.
//
// # Clocks
//
// The agent decides everything by one clock, which goes on while the machine sleeps. The loop
// reads the clock after each event. So a standby's wait counts from the instant at which the
// loop received a change of the Lease. The deadline counts from the instant of the last event
// that the loop received before it sent the renewal. Go's timers only wake the loop. Timers stop
// in suspend, so the shim, not this package, enforces the deadline.
//
// # What is not guaranteed
//
// A slot may have no holder: while the API server is away no pod acquires. A grant may
// arrive late, or stay unused. Readiness, Events and metrics are written beside the
// loop, late if need be. They never delay a renewal.
package agent
