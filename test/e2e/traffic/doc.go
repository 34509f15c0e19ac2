// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package traffic protects requests on their way to the holder: readiness, forwarding,
// and Services during handovers and rollouts. The tests of autoscalers' averages are
// here, too.
package traffic
