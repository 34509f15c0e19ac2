// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package space gives each test a namespace of its own. The test watches its pods, Leases
// and Events, and reads the records of its applications.
//
// When a test ends, its space checks all records. No two applications may have run at
// once, and fencing tokens must have grown. A failed test leaves a description of the
// namespace among its artifacts.
//
// A status or an Event may arrive late, so tests wait for up to [Soon]. A cluster of
// the user's own has no records; tests that need them are skipped.
package space
