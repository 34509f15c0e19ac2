// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package enroll gives gated pods what they need to compete for their slots:
// the Leases, and for each service account Roles that name them: one, or a further
// one for each 500 slots.
//
// Guarantee: a slot is never free only because something is missing. Every
// Lease is created as held by someone [Unknown], for the longest duration ever
// claimed under its name, so that everybody waits that long; it is freed at
// once only if a consistent list of the Roles, made after the Lease was there,
// shows that none ever named it: then nobody can ever have held it. What is no
// longer asked for is deleted when this process has seen it unchanged for a
// whole duration, the Lease before its name. An account that claims a Lease no
// longer loses its right after a duration, too. While others claim the Lease, some
// Role always remembers the Lease and its longest duration.
//
// Cost: a look at a namespace takes time and memory in proportion to its pods,
// workloads and slots. A look that finds nothing to do asks the API server nothing.
// A new Lease costs two writes, and each Role that names new Leases one.
//
// And no right is given on a Lease that no claim can name, nor for the marks of
// a pod without a gate where the namespace did not opt in: whoever may annotate
// pods must not choose what their service accounts may do.
//
// Clock model: no time of another machine is compared. Durations are measured
// on the clock that [Reconciler] is given, from when this process first saw a
// Lease as it is.
//
// It keeps nothing in memory that matters: any step may be the last one of the
// process, and two processes may run at once. Each write is a compare-and-swap
// or a creation; the comments say what a crash between two of them leaves.
//
// Not guaranteed: who deletes both a held Lease and the Roles that name it has
// removed all trace of the holder. Leases that others made (no label of ours)
// are used as they are, and neither freed, labelled nor swept; the policies on
// Leases do not judge their writers.
package enroll
