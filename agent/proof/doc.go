// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package proof judges from the reports of a pod's shims whether a hold is over. The package is
// pure: it sends nothing, reads no clock, and starts no goroutine.
//
// # The guarantee
//
// A hold is proven to be over only when no child of that hold can be alive. For one shim, any
// of these facts is proof:
//   - The shim names the hold in a Waiting or Ended report, so it has reaped all
//     descendants.
//   - The shim has Ended, so it starts no further child, even under a grant.
//   - The shim is Dead: its pidfd was readable, and the shim was PID 1.
//
// A hold is also proven to be over if this agent process began the hold, and sent no shim a grant
// of the hold.
//
// This agent process does not know the grants of an earlier agent process. By a report whose field
// Unproven is empty, the fresh shim of a container shows that the container's earlier shims have
// no child. Until a shim of every gated container has reported, nothing is proven. An init
// container that has succeeded gets no fresh shim. For such a container the notes of grants are the
// proof. If no note names the hold, no shim of the container has a child of the hold.
//
// # What is not proof
//
// Neither the end of a connection, nor a silent shim, nor a container without a shim is proof. A
// report that a shim waits is no proof while a grant may still be on its way to that shim. A
// doubt outlives the shim that reported it.
//
// # What is not guaranteed
//
// The package trusts the reports. The package knows neither Leases nor time: an expired hold
// without proof stays unproven.
package proof
