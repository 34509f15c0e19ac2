// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package client sends requests to a Service without a pause, and reports each that has
// no answer. A client is the tests' own program on a node.
package client
