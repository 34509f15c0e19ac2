// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package space gives each test a namespace of its own, with a watch on its pods,
// Leases and Events, and with the records of its applications.
//
// When a test ends, its space holds all records to the promise: no two
// applications ran at once, and fencing tokens grew. A failed test leaves a
// description of the namespace among its artifacts.
//
// What the cluster reports late (a status, an Event) is awaited for [Soon]. A
// cluster of the user's own has no records; tests that need them are skipped.
package space
