// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package network makes the bridge that all nodes share. The package also makes the link of each
// worker, and reports which links are down.
package network
