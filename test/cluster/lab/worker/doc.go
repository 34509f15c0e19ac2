// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package worker starts the workers. At first a worker runs only its container runtime. Later the
// worker becomes a node of the cluster.
package worker
