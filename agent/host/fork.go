// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"runtime/debug"
	"sync"
	"syscall"
)

// forks is locked during a fork, which may hang. Meanwhile a second fork waits, and Trim does
// nothing.
var forks sync.Mutex

// Fork calls syscall.ForkExec, which hangs on a volume that does not answer. The other
// goroutines must continue during a hang. A hanging fork keeps its thread and one of the
// Go scheduler's processors, so the shim has two processors. A garbage collection would
// wait for both processors, so none runs during a fork.
func Fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	forks.Lock()
	defer forks.Unlock()
	uncollected(func() { pid, err = syscall.ForkExec(path, argv, attr) })
	return pid, err
}

// heapLimit is the memory limit that [uncollected] sets. The limit is far above the heap of any
// shim, and below one gigabyte. From one gigabyte on, the Go runtime gives its own tables huge
// pages.
const heapLimit = 256 << 20

// uncollected calls f while no garbage collection runs or begins: the GC percentage is off
// during f. A collection that is just ending may already read this setting, and would then set
// an unlimited goal for the heap. With such a goal, the Go runtime would use huge pages of two
// megabytes for its tables. The memory limit prevents that. The limit stays after f, because a
// collection reads the percentage before the limit. If f's end removed the limit between these
// two reads, the goal would be unlimited after all.
func uncollected(f func()) {
	debug.SetMemoryLimit(heapLimit)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f()
}
