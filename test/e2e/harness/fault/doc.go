// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault breaks the cluster and pods, and repairs both at the end of the test.
//
// [Node] cuts, freezes or crashes a node; [Component] kills a daemon. A test that breaks a node or
// the control plane is not parallel, because all tests share the nodes and the control plane.
// [OfPods] lists the faults that affect only one pod.
package fault
