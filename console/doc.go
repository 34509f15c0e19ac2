// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package console shows all slots of a cluster to people, live and read-only.
//
// The console watches Leases, gated pods and the Events of agents, and never polls. Its page
// listens on the loopback of its pod. So the only way to the page is a port-forward, on which
// the API server decides (kubectl metaparticle console).
//
// The console reads no clock of another computer to decide anything. Ages on the page are
// differences to instants that other computers wrote.
//
// The console does not guarantee that the shown slots are current. While the API server does not
// answer, the page shows old slots, and says so.
//
// Rejected: a password in the page's address, which any process of the same user reads from the
// process list; the API server's proxy subresource, by which the pages of all services would share
// one origin.
package console
