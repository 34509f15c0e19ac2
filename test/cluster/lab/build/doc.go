// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package build compiles the programs of the cluster from Go modules, and keeps the
// results in a cache that all checkouts share.
//
// The key of a result names everything that decides the outcome. Debian packages
// provide the few programs that are not built.
package build
