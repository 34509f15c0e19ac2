// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package leash lets shims kill the programs of a pod whose holds of the local API are lost.
//
// Each gated container starts its program through a shim. The leash gives each shim a grant at
// once, and moves the deadline of that grant to a later instant, again and again. No API server
// takes part in that. While a program has a hold, no deadline moves beyond the deadline of that
// hold. So if the hold is not renewed in time, each shim kills its program, without an order.
//
// # The guarantee
//
// While an answer about a hold is good, the grant of each shim whose program may know the hold
// ends by the deadline of the hold. No deadline ever moves to an earlier instant, so this needs
// no confirmation from shims:
//
//   - A grant that the leash sends at an instant ends at most [api.Budget.Deadline] later. A hold
//     whose acquiring write was sent after that instant ends later than the grant.
//   - If a grant was sent between the acquiring write and its answer, [Leash.Tie] returns false.
//     Then the claim renews the hold before any program gets an answer.
//   - [Leash.Break] ends the leash of each such shim for good: no grant of theirs moves any more, and
//     the shim kills its program at once if the order arrives.
//   - After a leap of the wall clock a shim freezes its program. The leash lets the program
//     continue only when each claim has noted the leap, and has renewed its hold since then.
//
// A program that starts after the last call about a hold does not know that hold. So the loss of
// the hold does not kill that program.
//
// # What is not guaranteed
//
// A new agent process knows neither the holds nor the grants of an earlier process. So the grants
// of that process end, and all its programs are killed at their deadlines. The leash cannot kill
// programs of containers without a shim.
package leash
