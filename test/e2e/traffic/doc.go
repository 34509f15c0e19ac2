// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package traffic tests that requests reach the holder: readiness, forwarding, and Services
// during handovers and rollouts. The tests of autoscalers' averages are here, too.
package traffic
