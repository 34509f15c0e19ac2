// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package software deploys real applications, kills them in every way, and compares
// a gated pod with an ungated twin.
//
// Real software does not write the record of the test application. Instead, the kernel reports the
// start and end of each process (package witness), so no process is missed.
package software
