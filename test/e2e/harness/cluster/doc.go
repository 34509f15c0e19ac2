// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package cluster connects the tests to a cluster: the test cluster of this
// checkout, or a cluster of the user's own.
//
// [Connect] runs once, before all tests, and sets the variables of the package.
// Afterwards nothing changes them.
package cluster
