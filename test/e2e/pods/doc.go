// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects the settings of a pod: the command, the user, limits, quotas and sidecars.
// The tests of each sort of workload, and of kubectl commands on a pod, are here, too.
//
// The child must have the same settings as the container's process without the
// annotation.
package pods
