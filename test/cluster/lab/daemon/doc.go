// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package daemon describes the components of each node, from etcd to kube-proxy: their command
// lines, and the servers for which their start waits.
package daemon
