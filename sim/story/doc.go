// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package story plays the stories of seeds in package world. A story draws workloads, causes
// faults, and demands that all pods recover. Packages sim and sim/enrolled play the stories as
// tests.
//
// # Files
//
// The functions of play.go play one story each. A story consists of parts: the workloads
// (workloads.go), the faults (trouble.go), and the end of all faults (recovery.go). The story
// "table" causes one fault after the other (table.go); its rows are in the files *rows.go.
//
// # Liveness
//
// The times without faults are called quiet times. During a fault the world judges safety and the
// number of requests. After the fault, the story demands that each slot that a pod can acquire is
// in use within a bound. The bound is a sum of parts (bounds.go). The story demands the same under
// the lasting faults of a seed's climate: watches that are cut, refused or mute. A mute watch stays
// open, but carries no event.
//
// # Conditions
//
// Some pods of three stories have conditions (waiters.go). After the faults, each pod whose keys
// are done must go on. At the end of the story of Jobs, one pod holds until each pod with a
// condition has gone on. A mute watch delays a pod for 24 minutes at most. Only the stories of once
// claims and of Jobs with shards wait for that time. No pod holds at the end of these stories, so
// no renewals slow the simulation down.
//
// # Shards
//
// In a separate story, the number of a workload's shards changes while faults happen (shards.go).
// Package sim/enrolled plays the story with the real enroll.
//
// In another story, Jobs of one name follow each other (mapping.go). Each Job runs each of its
// shards until that shard has succeeded once. Pods of two Jobs never hold or run together. Other
// pods wait until all shards of a Job are done. For a while, a process of the model of enroll may
// treat an earlier Job as the current Job. In some seeds a person deletes a Job but not its pods,
// or changes the number of shards in the template of a suspended Job.
//
// # Rollouts
//
// The controllers of workloads are in package controller. Persons apply good and broken versions,
// undo changes, and scale and delete workloads (changing.go, persons.go). The story judges rollouts
// in times without faults (judge.go). During faults the world checks only the invariants of safety.
// After the faults, the rollout of a good version must end.
//
// # Hangs and preferences
//
// In a story of its own, applications have served and then fail their probes (hanging.go). In another one, a
// template prefers the pods of one zone (preferring.go). Both judge each move of the slot (moves.go): the
// waits between hangs double, and preferences never chase each other. In a third story pods die, freeze,
// are deleted or lose their images at one step of their conversation with the holder (courting.go). In all
// stories the world demands that no application stops for a pod that has not answered.
//
// # Clocks
//
// All bounds count true time. A wait is longest for a pod with the slowest clock ([world.Slow]).
//
// # Not guaranteed
//
// A story demands recovery only after its faults have ended. In a story of rollouts, no rule
// promises the end of the rollout of a version that breaks late.
package story
