// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent is the loop of a gated pod: stand by, hold, drain, stand by.
//
// # The guarantee
//
// A grant is given only while every slot of the pod is held, by the rules of
// package lease, and never for longer than that. A slot is released only when
// every shim that had a grant of the hold is proven dead, or proven to have no
// child of it any more.
//
// # What is proof, and what is not
//
// Proof that no child of a hold is alive:
//   - a shim says so (Waiting or Ended, naming the hold): it reaped everything;
//   - a shim has Ended at all: it starts nothing more, whatever it was granted;
//   - a shim is Dead: its pidfd was readable, and it was PID 1;
//   - a hold whose number this process drew, and that was granted to nobody (an
//     acquiring write whose answer was lost);
//   - a Lease of this pod with another boot id than today's.
//
// For a hold that an earlier agent process began, this process does not know
// who was granted it. Each gated container's fresh shim then speaks for those
// before it, by not being Unproven; until every container has spoken, nothing
// is proven. An init container that has succeeded never has a fresh shim: the
// notes of grants speak for it, if there is none.
//
// Between an init container that succeeded and what comes after it, a hold is
// kept for a while though nothing runs under it. That needs no proof: only a
// release does.
//
// No proof: a connection that ended, a shim that is silent, a container without
// a shim, a shim that waits but may have a grant on its way, a pod or a Lease
// that is gone, a SIGTERM to the agent, the identity in a Lease. A doubt that a
// shim voiced outlives that shim. Without proof the hold is neither renewed nor
// released, and this pod waits for its end like everybody else.
//
// # Clocks
//
// Every decision is made by one clock that goes on while the machine sleeps,
// read anew after each event; the standby's rule is that it reads it after it
// saw something, the holder's that it reads it before it sends something. Go's
// timers only wake the loop. They stop in suspend, which is why the deadline is
// the shim's to enforce and not this package's.
//
// # What is not guaranteed
//
// That there is a holder: while the API server is away nobody acquires. That a
// grant arrives, or is used. Readiness, Events and metrics are for people and
// Services; they are written beside the loop, late if need be, and never in the
// way of a renewal.
package agent
