// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package record keeps the evidence of the end-to-end tests: the processes that ran,
// their starts and ends, and their overlaps.
//
// Every node of the test cluster is a set of namespaces on one machine. So all nodes
// share one clock (CLOCK_BOOTTIME) and, through a directory of the host, one set of
// files. A process that must be alone calls [Begin], which takes an exclusive flock
// without waiting. A failed flock is the kernel's proof that another process lives.
// The process goes on all the same, so that the length of the overlap is recorded.
//
// A living process writes a time stamp into a mapped file every 20 ms ([Beat]). So the record shows
// the end of a killed process, too. If more than [GapLimit] lies between two time stamps, this time
// is recorded as a gap, in which the process was frozen and did nothing.
//
// Not guaranteed: the exact instant of an end. On an idle machine the last time stamp is up to one
// [Beat] earlier than the end. On a busy machine the last time stamp may be several beats earlier.
// The proof of an overlap does not depend on time stamps, because the flock gives it.
package record

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Beat is the time between two time stamps. Beat is short compared with a takeover from a
	// killed process, which takes seconds. After a stop signal, [Writer.End] records the exact end
	// of the process. A shorter Beat would cost more, because on a virtual machine each wake-up is
	// expensive.
	Beat = 20 * time.Millisecond
	// GapLimit bounds the time between two time stamps. A longer time is recorded as a gap. The
	// limit is far above a beat's delay on a busy machine. The limit is far below the seconds for
	// which a fault freezes a process.
	GapLimit = 500 * time.Millisecond
)

// Now returns the time of CLOCK_BOOTTIME, the clock that all nodes share.
func Now() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		// The clock is part of every kernel since 2.6.39.
		panic(err)
	}
	return time.Duration(now.Nano())
}

// Meta is what a process writes about itself at its beginning.
type Meta struct {
	Pod  string `json:"pod,omitempty"`
	UID  string `json:"uid,omitempty"`
	Node string `json:"node,omitempty"`
	// PID is the process's number in its own PID namespace.
	PID int `json:"pid"`
	// Slot and Token come from the environment of the process.
	Slot  string `json:"slot,omitempty"`
	Token string `json:"token,omitempty"`
	// Parent is the ID of the process whose flock this one shares.
	Parent string `json:"parent,omitempty"`
}

// line is one line of the record.
type line struct {
	Event event         `json:"event"`
	ID    string        `json:"id"`
	At    time.Duration `json:"at"`
	Meta  *Meta         `json:"meta,omitempty"`
	// Contended reports that another process had the flock of [Begin] when this process began.
	Contended bool `json:"contended,omitempty"`
	// Until is set only if Event is gap. The gap begins at the instant At, and ends at Until.
	Until time.Duration `json:"until,omitempty"`
	Code  int           `json:"code,omitempty"`
}

type event string

const (
	began   event = "began"
	signal  event = "signal"
	gap     event = "gap"
	endsNow event = "ends"
)

func recordFile(dir, name string) string    { return filepath.Join(dir, name+".jsonl") }
func lockFile(dir, name string) string      { return filepath.Join(dir, name+".lock") }
func stampFile(dir, name, id string) string { return filepath.Join(dir, name+"."+id+".stamp") }
