// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package kube is the agent's own client of the Kubernetes API: one Lease to
// read, write and watch, a pod's own status to patch, Events to create. It
// imports the standard library alone, because it runs next to every gated
// application: client-go weighs 26 MB on disk and 20 MB resident for the same
// five requests, this package about 6 MB of each, most of it TLS.
//
// # Guarantees
//
// A Lease is written only over the object that was read: a PUT without uid and
// resourceVersion never leaves this process (the server would create a missing
// object, and compare nothing). An answer counts only if the object was stored
// by this request ([ErrUnchanged] otherwise). Whatever a Lease contains that
// this package does not know goes back as it came. Nothing is sent twice
// behind the caller's back: there is no retry but one, after a 401 that a
// rotated token explains, and a request that was answered with 401 changed
// nothing. There is no client-side rate limit, and no request waits for
// another one.
//
// # Clocks
//
// The package compares no clocks and reads none but its own process's, to age
// its copy of the token. AcquireTime and RenewTime are bytes that pass through
// it.
//
// # What is not guaranteed
//
// An error is no proof that a write was not stored: the reply may be what was
// lost. [Refused] tells the two cases apart. A watch may be late or silent for
// as long as it likes (a frozen API server keeps its connections open), so
// silence proves nothing; a cut network path, though, is noticed within
// 8 seconds. A CA that was withdrawn is not trusted for new connections, but
// those that stand are not closed.
package kube
