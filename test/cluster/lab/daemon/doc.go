// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package daemon knows the components of each node, from etcd to kube-proxy: their
// command lines, and what each component needs before its start.
package daemon
