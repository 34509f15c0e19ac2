// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package exclusive protects the promise itself: two pods never run the application
// under one slot. Its tests kill processes, cut, freeze and crash nodes, stop the
// control plane, steal slots and delete Leases.
//
// The evidence is the record (package record). All nodes share one clock and one kernel. The tests
// measure each takeover against the time budget of its lease.
package exclusive
