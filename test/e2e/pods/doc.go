// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects the settings of a pod: the kind of workload, command, user,
// limits, quota and sidecars. The tests of kubectl commands on a pod are here, too.
//
// The child must have the same settings as the container's process without the
// annotation.
package pods
