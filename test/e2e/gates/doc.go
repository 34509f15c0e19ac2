// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gates protects the two gates without a shim. The gate "pod" is for images that
// must be PID 1. With the gate "readiness" the application runs in every pod.
package gates
