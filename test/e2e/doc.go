// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests what a user sees on a real cluster. The tests deploy annotated
// workloads of an application that knows nothing of Metaparticle (test/app), and
// break pods, nodes and the cluster.
//
// # Where things are
//
// The tests are in folders. The package comment of each folder says what the folder protects. The
// folders are ordinary packages, and e2e_test.go starts all their tests in one binary ("make
// golden" writes the file). So Go schedules all tests together, RUN selects tests of every folder,
// and client-go is linked once. The packages in harness have no end-to-end tests. Package record
// records when each process of the application ran.
//
// # Parallel tests
//
// A test that harms only its own pods calls t.Parallel. A test that harms a node, the control plane
// or the webhook is serial, and does not call t.Parallel. Go first runs the serial tests, one after
// the other, and then the parallel tests. With -share=I/N, N clusters run the serial tests at once.
// A cluster still runs one serial test at a time.
//
// # Time
//
// A busy machine may delay any process for seconds. Package lease has lease durations
// that survive such a delay. A watch may be late. So a test that needs the state of the cluster at
// an instant reads this state from the API server or the kernel.
//
// Some tests need faults, or the one kernel that all nodes of the test cluster share. On a cluster
// of the user's own (KUBECONFIG), Go skips these tests and prints the reason.
//
// Rejected: a binary for each folder, because disruptive tests would need locks across processes,
// which are not fair, and each binary would link client-go and push the images. Times and overlaps
// come from the kernel (package witness, flocks of package record) and not from the agents that the
// tests judge.
package e2e
