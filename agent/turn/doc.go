// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package turn decides why and when a hold ends in favour of another pod, and which pod may be Ready
// meanwhile. It is pure: it sends nothing, and takes the time as an argument.
//
// A standby says in the slot's next Lease that it wishes for the slot: its revision is newer, it is preferred,
// or it is of the proven revision behind a holder that is not. A holder that may yield to it, or whose own
// application hangs, announces its end in its slot's Lease (package leave), and ends only once that pod, or for
// a hang any pod, answers. A word names the hold or the announcement that it is about, so an old one is void,
// and a pod that has died costs no stop. A holder of a newer revision is in its turn, and not Ready, until its
// application has served for [api.TurnProof]. A turn that fails gives the slot back to the pod that yielded.
//
// Guaranteed: the holder alone decides when it yields, and counts each turn in its releasing write, even if the
// successor never acquires. So a revision stops another at most four times in the first hour, and once in each
// later hour, until it has been proven for [api.TurnForget]. Hangs move a slot seldom ([api.HangWait]), and only
// if another pod can take it; preferences, once in [api.PreferSettled] at most, and ever more seldom to a pod whose
// application fails. No pod waits longer than [LastResort] for a free slot because of turns. Each span is measured by one agent, on its own clock, so a restart of the agent only prolongs
// it. Times in the Lease are for people.
//
// Not guaranteed: package elector decides whether a pod may have a slot. Once no old pod is left, nothing
// protects a rollout. Pods of two workloads, or of an unknown revision, take no turns.
//
// Rejected: a planner in the controller, because nobody would end a turn while it is away, its facts are
// older than an answer, and a drain evicts it together with the holders; a yield without a named successor,
// because an old standby would take the slot back; a new pod that is Ready before its turn, because the
// controller would delete the old one.
package turn
