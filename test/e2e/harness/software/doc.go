// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package software deploys real applications, kills them in every way, and compares
// a gated pod with an ungated twin.
//
// Real software keeps no record. The kernel reports the start and end of each process
// instead (package witness), so no process is missed.
package software
