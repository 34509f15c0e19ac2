// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package worker starts the worker nodes, first up to the container runtime, then
// as nodes of the cluster.
package worker
