// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects what people put into a pod: the kind of workload, command,
// identity, limits, quota and sidecars. The use of kubectl on a pod is here, too.
//
// The child is what the container would have been without the annotation.
package pods
