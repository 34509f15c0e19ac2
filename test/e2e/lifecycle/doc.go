// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lifecycle protects the life of a gated container: starts, probes, hooks,
// stop signals, exit codes, restarts and grace periods.
//
// Most tests create the same pod twice, plain and gated, and compare what the
// kubelet reports of both.
package lifecycle
