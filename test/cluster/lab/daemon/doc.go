// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package daemon knows the components of each node, from etcd to kube-proxy: their
// command lines, and what must answer before each one can start.
package daemon
