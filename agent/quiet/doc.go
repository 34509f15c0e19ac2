// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package quiet makes system calls that never block, unknown to Go's scheduler.
//
// An agent mostly sleeps, and its few wake-ups are short. Before each usual system call, Go's runtime
// wakes a thread (sysmon), which watches calls that block. In a process that has just been idle,
// this thread costs more processor time than the work itself: `go test -bench . ./agent/quiet` shows
// the difference. The calls of this package return at once, so no thread needs to watch them.
package quiet
