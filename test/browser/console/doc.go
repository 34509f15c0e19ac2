// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package console tests the page of the console in a browser. The server is the real one,
// and a script writes its Leases, pods and Events.
//
// No test of this package has a cluster: test/e2e/operations reads the stream of a real one.
package console
