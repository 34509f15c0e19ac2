// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package local serves the local API, by which a program uses the claims of its own pod over
// HTTP. The agent renews each hold for as long as the program shows that it lives.
//
// A keeper keeps one claim. Only the keeper's loop decides about that claim, and only this loop
// knows the bids of the program. A handler posts each call to the loop, and waits for the answer.
// At most one bid gets the hold; the other bids wait in the order of their arrival.
//
// # The guarantee
//
// While an answer to the program is good, no other pod acquires the slot. Each answer states
// for how long it is good. That time counts from the sending of the last stored renewal, and
// ends a margin before another pod may acquire the slot ([api.Budget]).
//
//   - The agent releases a hold only if the program has given the hold back, or never learned
//     of the hold. The end of a connection is no proof that the program stopped its work. So the
//     end of a stream, and the absence of heartbeats, end the renewals. Then the Lease expires.
//   - An agent never resumes a hold of an earlier agent process, because the agent cannot know
//     what that process has told the program.
//   - Each hold has a new fencing token, which is greater than all earlier tokens of the slot.
//   - After a leap of the wall clock the machine may have been paused. Then no answer is good
//     before a renewal has been stored.
//   - A call for several claims gets a hold of each claim, or of none. The answer is good until
//     any of the holds ends.
//
// # What is not guaranteed
//
// Without a leash ([Config.Leash]) no shim stops the program. If a program ignores the end of its
// hold, the program works on while the next holder works. Only the fencing token protects a
// resource from such a program. With a leash, the shims kill each program that may know a lost
// hold.
//
// # Variables
//
// A [Variable] reads and writes one Variable object. For a write under a hold, the hold's keeper
// supplies the fence before each attempt. A hold that is not good has no fence.
//
// # Barriers
//
// While calls of programs wait at a barrier, [wait.Barrier] makes the pod arrive. The pod makes
// one arrival, however many of its calls wait. After the last call, the pod still counts for the
// time [countsOn]. The answer that a barrier is open has no deadline, because no agent closes
// a barrier.
//
// # Requests
//
// If there has been no bid, no hold and no call within the last minute, the agent sends no
// request, and watches no Lease. All requests of a claim stay within the bounds of package
// elector.
//
// Rejected for readers and a writer: a fair queue of the waiting pods, in which a dead pod delays
// all behind it by a lease duration. No claim has a queue.
package local
