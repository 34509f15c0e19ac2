// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leash lets shims kill the programs that may know a lost hold. The programs learn of holds
// from the local API.
//
// Each gated container starts its program through a shim. The leash gives each shim a grant at
// once, and moves the deadline of that grant to a later instant, again and again. The leash needs
// no API server. While a program has a hold, no deadline moves beyond the deadline of that hold.
// So if the hold is not renewed in time, each shim kills its program without an order.
//
// # The guarantee
//
// A shim is tied to a hold if its program may know the hold. After [Leash.Tie] has returned true,
// the grant of each tied shim ends by the deadline of the hold. Before that result, the claim does
// not answer a program that the hold is good. The leash moves no deadline to an earlier instant, so
// no shim has to confirm anything:
//
//   - A grant ends at most [api.Budget.Deadline] after its sending. So a grant ends before each
//     hold whose acquiring write is sent later.
//   - If a grant was sent between the acquiring write and its answer, [Leash.Tie] returns false.
//     Then the claim renews the hold before any program gets an answer.
//   - After [Leash.Break] the deadlines of all tied shims stay as they are. If the order to kill
//     arrives, the shim kills its program before the end of its grant.
//   - After a leap of the wall clock a shim freezes its program. The leash thaws the program
//     only when each claim knows of the leap. Each hold to which the shim is tied must also
//     have been renewed since the leap.
//
// A program that starts after the last call of the local API about a hold does not know that hold.
// So the loss of the hold does not kill that program.
//
// # What is not guaranteed
//
// A new agent process knows neither the holds nor the grants of an earlier process. So the grants
// of that process end, and the shims kill all programs at the deadlines of these grants. The leash
// cannot kill programs of containers without a shim.
//
// Rejected: a confirmation of each hold by each shim, because the child would start without a
// deadline, and an acquisition would move a running child's deadline to an earlier instant; a shim
// that starts the program only after its first hold, because a program that does not run cannot
// ask; a shim that watches the Lease, which needs the pod's credentials in the application's
// container; the exit of the sidecar as the sign of a loss, on which only the kubelet reacts, after
// seconds.
package leash
