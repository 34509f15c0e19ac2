// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package controller models the controllers of Deployments, ReplicaSets, StatefulSets and DaemonSets,
// by their source in Kubernetes 1.37. Package story applies revisions to the workloads of these
// controllers.
//
// # Guarantee
//
// A controller makes and deletes pods of package world as the real controller does. A controller
// does nothing while the API server is away. A pod on a node that is cut off keeps its last
// readiness.
//
// # Clocks
//
// A controller works by true time, and pauses for a random time between two steps ([MostIdle]).
//
// # Not guaranteed
//
// No controller acts on the progress deadline of a Deployment, so Deployments of the world have no
// such deadline.
package controller
