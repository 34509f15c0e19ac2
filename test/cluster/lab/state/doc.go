// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package state reads and writes the state directory of a cluster. The directory contains
// the facts that a later process must know about a running cluster. The package also
// defines names and addresses of the cluster.
//
// The package starts nothing and waits for nothing. The other packages of the lab build on
// this package, except for cgroup and wait.
package state
