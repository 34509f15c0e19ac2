// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package holder deploys a singleton, names its holder, and measures what a fault
// does to the holder against the time budget of the lease.
package holder
