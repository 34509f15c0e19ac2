// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package kube is the agent's client of the Kubernetes API. The client reads, writes and watches
// Leases and Variables, patches the status of the agent's pod, and creates Events. [Follow] is the one
// loop that reads and watches; only a claim decides about its own looks (package elector). Beside
// packages api and pace, the package imports only the standard library, because it runs next to every gated
// application. For the requests to Leases, pods and Events, client-go takes 26 MB on disk and 20 MB
// of memory. This package takes about 6 MB on disk and 6 MB of memory, most of both for TLS.
//
// # Guarantees
//
// The API server refuses a write of a Lease that has changed since the client read it. The
// package never sends a PUT without uid and resourceVersion, because the API server would then
// create a missing object, or compare nothing. The answer to a write counts only if this request
// stored the object; if not, the error is [ErrUnchanged]. Fields of a Lease or Variable that this
// package does not know are written back unchanged, except for managedFields. The package repeats a
// request only once, after a 401, if the service account token has been rotated. A request answered
// with 401 changed nothing. The client limits no rate, and no request waits for another one.
//
// # Clocks
//
// The package compares its own clock with no other clock. The client reads the clock of its
// process only for the age of its copy of the service account token. [Pod.GraceLeft] is the
// difference of two instants in one answer of the API server. The client compares AcquireTime
// and RenewTime with no clock.
//
// # What is not guaranteed
//
// An error alone does not prove that a write was not stored, because the answer may have been
// lost. [Refused] reports whether an error is such a proof. A watch may be late or silent for
// any time, because a suspended API server keeps its connections open. So silence proves nothing.
// The client notices a cut network path within 8 seconds, but no other cause of a silence. If a
// CA is withdrawn, new connections no longer trust it, but open connections stay.
package kube
