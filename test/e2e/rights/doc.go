// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package rights protects the limits of the service accounts. An agent changes only its own pod and
// its own Leases. The webhook's account changes only what enroll must change.
package rights
