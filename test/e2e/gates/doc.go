// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gates tests the gates "pod" and "readiness", which have no shim. The gate "pod" is for
// images whose program must be PID 1. With the gate "readiness" the application runs in every pod.
package gates
