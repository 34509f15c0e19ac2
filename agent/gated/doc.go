// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gated has the roles of a program inside a gated container: the shim, the exec probes, and
// the hooks of the shim.
//
// The memory of these processes counts against the application's limit, and each pod has its own
// copy of their program. So package gated uses neither package http nor TLS. The program cmd/shim
// contains nothing else. A hook that sends an HTTP request runs in the program cmd/agent.
//
// The type Roles runs the role that a program's first argument names. The program cmd/agent, too, has
// such a table, because both programs depend on package gated.
package gated
