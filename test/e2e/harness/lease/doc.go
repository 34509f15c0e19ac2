// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package lease has the lease durations of the tests, with the reason of each, and
// changes Leases as an administrator can.
//
// A machine may stall any process for seconds. A test in which no pod should lose its
// slot uses [Lasting], so that a stall costs no slot. A test of lost slots uses [Fault].
package lease
