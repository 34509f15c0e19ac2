// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package traffic protects the way of requests: readiness of holder and standby,
// forwarding, Services during handovers and rollouts, and the averages by which
// an autoscaler decides.
package traffic
