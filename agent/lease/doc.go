// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lease is the core of a slot's exclusivity: when a standby may take a
// Lease, what it writes, which answers count, and until when it then holds. It
// is pure: it starts nothing, asks nobody, and is told what time it is.
//
// # The guarantee
//
// Of all who follow these rules, at most one holds a slot at any instant, and
// its deadline passes a margin before anybody else may begin.
//
//   - Every write replaces exactly the object that was read ([Record.UID] and
//     [Record.Version]), so of two that read the same, one wins.
//   - A write counts only if the answer's version differs from the one that was
//     sent: a PUT of equal bytes is answered 200 and not stored. Written renew
//     times therefore always differ from the one read, also in the microseconds
//     that a Lease has room for.
//   - A hold counts from the instant before its write was sent. Of writes whose
//     answer never came and that turn out to have been stored, it counts from
//     the earliest that is unanswered: which one it was, nobody knows.
//   - A standby counts from the instant at which it saw the last change, which
//     is after that write was sent, and waits the duration that is written in
//     the Lease, not its own.
//
// # Clocks
//
// An instant is a [time.Duration] since boot on a clock that goes on while the
// machine sleeps (CLOCK_BOOTTIME). Instants of two machines are never compared,
// only spans, and the margin of [api.Budget] pays for two clocks of which each
// is off by up to a twelfth, the most by which chronyd slews. Wall clocks are
// written into the Lease for people; nothing here reads one back.
//
// # What is not guaranteed
//
// Programs that do not follow the rules (an elector that releases before its
// work has ended; a person with kubectl) are not kept out. Somebody who writes
// into the Lease without renewing it only makes standbys wait longer. Nothing
// here knows whether a child is dead: who releases, or takes its own Lease back
// without waiting, must have proof.
package lease
