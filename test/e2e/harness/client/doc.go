// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package client sends a steady stream of requests to a Service, and reports each request
// without an answer. A client is a process of the tests' own binary on a node.
package client
