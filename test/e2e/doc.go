// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests what a user sees, on a real cluster: workloads of an
// application that knows nothing of Metaparticle (test/app), annotated, and
// whatever can go wrong done to them.
//
// The evidence is the application's own record (package record): one clock and
// one kernel for all nodes of the test cluster. Whatever a test is about, no
// test passes in whose namespace two applications ran at once.
//
// A test that harms only its own pods is parallel. One that harms the cluster
// (a node, the control plane, the webhook) is not: Go runs those first, one
// after the other.
//
// The machine may let any process wait for seconds. A test that is not about
// losses gives its application a lease that rides that out (lasting), and one that
// is, a lease as short as it can wait for. What the cluster tells late (a status, an
// Event, a stream's answer) is waited for (soon); where the truth matters at an
// instant, the API server or the kernel is asked.
//
// On a cluster of the user's own (KUBECONFIG) the tests that need the test
// cluster's one kernel or its faults are skipped, and say so.
package e2e
