// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the contract between three programs: webhook, agent and shim. The webhook
// turns annotations into a pod with an agent and shims. All three programs import the package,
// and the package imports the standard library alone.
//
// The contract is data. [Annotations] is the table of all annotations that a person may
// write. A row describes one annotation, and names the [Kind] of claim that the annotation
// makes. [Parse] reads a pod's annotations into a [Request] by that table. [RunArgs],
// [ExecArgs] and [ProbeArgs] are the webhook's arguments for agent and shim. Each type writes and
// parses its arguments by one table. [RecallRunArgs] and [RecallExecArgs] read the arguments
// back from a pod's spec. Names, paths and exit codes are constants. [Budget] divides a lease
// duration.
//
// Guarantee: agent and shim read the arguments that the webhook of the same version
// wrote. A program that reads a pod's spec ignores arguments that only another version of
// Metaparticle knows. A process that is started with such arguments ends with an error.
//
// Clock model: none. Durations are values here; no function reads a clock.
//
// Not guaranteed: that the webhook wrote the arguments in a pod's spec. A person who may create
// pods may write them, too. Package podspec and the policies decide whether a
// pod has its gate.
//
// A lock NAME has the Lease lock.NAME, a singleton singleton.KIND.NAME, so that `kubectl get
// leases` is readable, client-go can use them, and two slots never share a name; what is longer
// than 253 characters ends in a hash. Rejected: lists in the policies that are generated from this
// package, because people review and apply those files; tests compare them instead.
package api
