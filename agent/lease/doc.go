// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lease contains the rules that make a slot exclusive. The rules decide when a standby
// may acquire a Lease, what an agent writes, which answers count, and when a hold ends. The
// package is pure: it starts no goroutine, sends nothing, and takes the time as an argument.
//
// # The guarantee
//
// Of all clients that follow these rules, at most one holds a slot at any instant. A margin
// separates the holder's deadline from the instant at which another client may acquire the
// slot.
//
//   - Every write replaces exactly the object that was read ([Record.UID] and
//     [Record.Version]). If two agents read the same version, only one of their
//     writes succeeds.
//   - A write counts only if the version in the answer differs from the version in the
//     request. The API server answers a PUT of equal bytes with 200 and does not store it. So the
//     renew time of each write differs from the renew time that was read. The difference is at
//     least a microsecond, the finest unit that a Lease can store.
//   - A hold's deadline counts from the instant just before its last stored write was sent. A read
//     may show that one of several unanswered writes was stored. Two of these writes may have the
//     same renew time, so the deadline then counts from the earliest of them.
//   - A standby waits from the instant at which it saw the last change. The holder's deadline
//     counts from an earlier instant, before the holder sent that change. The standby waits for the
//     duration in the Lease, not for its own duration.
//   - A holder may list supporters in its Lease, which then states a longer duration ([api.Supporters]). A
//     listed standby may acquire the slot after the wait in the list, and not before its promises are over.
//     So the deadline counts on a wait beyond that in the list only as far as each supporter has promised,
//     for each list that the API server may have stored.
//
// # Clocks
//
// An instant is a [time.Duration] since boot, on a clock that continues while the machine sleeps
// (CLOCK_BOOTTIME). The rules never compare instants of two machines, only spans. The margin of
// [api.Budget] covers a clock that is slow by a twelfth, beside a clock that is fast by a
// twelfth. The daemon chronyd slews a clock by no more than that. Agents write wall clock times
// into the Lease for people, and no rule compares these times with a clock.
//
// # What is not guaranteed
//
// The rules cannot stop a person with kubectl, or a client that ignores the rules. For example, a
// leader election may release the Lease before its work has ended. If another client writes the
// Lease, but leaves the holder, the duration and the supporters unchanged, the standbys only wait longer. If
// another client shortens the duration, or adds a supporter, a standby may acquire the slot before the deadline of a
// living holder. Package elector follows the annotations that a person writes: [Record.Paused] and
// [Record.Yield]. Package lease does not know whether a child is dead. An agent needs proof of
// death before it releases, or before it takes its own Lease back without waiting.
package lease
