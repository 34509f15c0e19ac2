// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package build compiles the programs of the cluster from Go modules, and keeps the
// results in a cache that all checkouts share.
//
// The name of a result in the cache changes with everything that changes the result. Debian
// packages provide the few programs that are not built.
package build
