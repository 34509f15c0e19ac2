// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects what people put into a pod: the kind of workload, command,
// identity, limits, quota and sidecars. kubectl works on a gated pod as on any.
//
// The child is what the container would have been without the annotation.
package pods
