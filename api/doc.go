// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package api is the contract between the two programs: the webhook, which
// turns annotations into a pod with an agent in it, and the agent, which lives
// in that pod. Both import it; it imports the standard library alone.
//
// It holds three things: what a person writes (annotations, parsed to a
// [Request]), the names under which the injected parts find each other
// (containers, volume, paths, environment), and the time [Budget] that a lease
// duration is divided into.
package api
