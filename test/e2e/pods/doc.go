// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects the settings of a pod: the kind of workload, command, identity,
// limits, quota and sidecars. The use of kubectl on a pod is here, too.
//
// The child must equal the container's process without the annotation.
package pods
