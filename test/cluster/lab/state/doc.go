// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package state is the state directory of a cluster. The directory contains the facts
// that a later process must know of a running cluster. Names and addresses of the
// cluster are here, too.
//
// The package starts nothing and waits for nothing. The other packages of the lab build on
// this package, except for cgroup and wait.
package state
