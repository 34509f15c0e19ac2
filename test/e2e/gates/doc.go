// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gates protects the gates outside of the containers: "pod", for images
// that must be PID 1, and "readiness", for applications that run in every pod.
package gates
