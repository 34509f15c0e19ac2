// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package holder deploys a singleton, names its holder, and compares the effect of a
// fault with the time budget of the lease.
package holder
