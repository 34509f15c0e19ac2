// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pods protects what people put into a pod: its kind of workload, its
// command, identity, limits, quota and sidecars, and the use of kubectl on it.
//
// The child is what the container would have been without the annotation.
package pods
