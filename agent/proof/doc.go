// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package proof judges from the reports of a pod's shims whether a hold is over.
// The package is pure: it sends nothing, reads no clock, and starts no goroutine.
//
// # The guarantee
//
// A hold is proven to be over only when no child of it can be alive. Any of these
// facts is proof for one shim:
//   - The shim names the hold in a Waiting or Ended report, so it has reaped all
//     descendants.
//   - The shim has Ended, so it starts nothing more, even under a grant.
//   - The shim is Dead: its pidfd was readable, and the shim was PID 1.
//
// A hold that this agent process began, and granted to no shim, is also proven to be over.
//
// This agent process does not know the grants of an earlier agent process. Each gated
// container's fresh shim then accounts for the earlier shims of the container, by a report
// without Unproven. Until every container has reported, nothing is proven. An init
// container that has succeeded never has a fresh shim. Instead, the notes of grants are the
// proof. If no note names the hold, no shim of the init container has a child of the hold.
//
// # What is not proof
//
// The end of a connection proves nothing, nor does a silent shim or a container without
// a shim. A waiting shim proves nothing while its grant may be on its way. A doubt that
// a shim reported outlives that shim.
//
// # What is not guaranteed
//
// The package believes the reports. The package knows neither Leases nor time: an
// expired hold without proof stays unproven.
package proof
