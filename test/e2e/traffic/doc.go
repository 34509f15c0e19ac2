// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package traffic protects the way of requests: readiness, forwarding, and Services
// during handovers and rollouts. The averages of autoscalers are here, too.
package traffic
