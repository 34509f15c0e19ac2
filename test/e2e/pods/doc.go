// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects the settings of a pod: the command, the user, limits, quotas and sidecars.
// The tests of each sort of workload, and of kubectl commands on a pod, are here, too.
//
// The child must have the settings that the container's process would have without a gate.
package pods
