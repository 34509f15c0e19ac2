// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package console tests the page of the console in a browser. The tests run the console's real
// server, and the type story supplies the Leases, pods and Events.
//
// No test of this package has a cluster. The tests of test/e2e/operations use a real cluster.
package console
