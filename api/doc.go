// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the contract between the two programs. The webhook turns annotations
// into a pod with an agent in it; the agent lives in that pod. Both programs import the
// package, and the package imports the standard library alone.
//
// The contract is data. [Annotations] is the table of all that a person may write. A row
// describes one annotation, and names the [Kind] of claim that the annotation makes.
// [Parse] reads a pod's annotations to a [Request] by that table. [RunArgs], [ExecArgs] and
// [ProbeArgs] are what the webhook tells the agent; each writes, parses and recalls the
// words of a container by one table. Names, paths and exit codes are constants.
// [Budget] divides a lease duration.
//
// Guarantee: two programs of one version read what the other one wrote. Words of
// another version are passed over where a pod's spec is read back, and are an error
// where a process gets them.
//
// Clock model: none. Durations are values here; no function reads a clock.
//
// Not guaranteed: that the words in a pod's spec are the webhook's. Whoever may create
// pods may write them. Package podspec and the policies say what counts.
package api
