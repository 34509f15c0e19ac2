// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package process finds the processes of a pod on this machine and signals them.
//
// Nodes are namespaces of one machine. So the tests see each process of each pod from
// outside, and a pidfd makes sure that a signal reaches the process that was found. On
// a cluster of the user's own the package finds no process.
package process
