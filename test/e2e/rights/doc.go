// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package rights protects the limits of the service accounts: an agent changes
// its own pod and its own Leases only, the webhook's account what enroll needs.
package rights
