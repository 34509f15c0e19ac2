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
// On a cluster of the user's own (KUBECONFIG) the tests that need the test
// cluster's one kernel or its faults are skipped, and say so.
package e2e
