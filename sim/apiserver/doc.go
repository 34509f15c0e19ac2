// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package apiserver models the API server of one namespace, and the network between its clients and
// the server. The package knows nothing about pods and nodes. Package world builds on it.
//
// # Guarantee
//
// The [Server] stores PUT, POST and DELETE as a real server does, as far as agents and enroll depend
// on the answers. Objects keep all their states, so a check can ask for an earlier state. The server
// reports each stored write of a Lease to the function that [New] gets, before any watch shows the
// write.
//
// A [Client] sends the requests of one process. The [Weather] decides whether a request is lost,
// late or refused, or loses its answer. The function [Client.Allowed] decides about rights. A client
// that sends too many requests within a minute violates the invariant [Chatter].
//
// A [Scripted] server has no weather. The tests of the agent's packages use it instead of fakes of their
// own: the test decides about each request, and [Scripted.ServeHTTP] serves a real agent.
//
// # Clocks
//
// All instants are true time. The clients measure no time of their own, so the caller's context
// bounds each request.
//
// # Not guaranteed
//
// Only Leases have watches. The status of a pod belongs to package world ([Client.Patched]).
// Variables have a separate sequence of resourceVersions, which leaves the resourceVersions of
// other objects as they are.
package apiserver
