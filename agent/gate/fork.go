// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// forks is held during a fork, which may hang: a second one waits, and so does
// what gives memory back.
var forks sync.Mutex

// fork is syscall.ForkExec in a program that must go on if that hangs, as it does
// on a volume that does not answer. A fork that hangs keeps its thread, and with
// it one of the Go scheduler's processors: that is why the shim has two. A garbage
// collection would wait for both of them: that is why there is none meanwhile.
func fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	forks.Lock()
	defer forks.Unlock()
	uncollected(func() { pid, err = syscall.ForkExec(path, argv, attr) })
	return pid, err
}

// heapLimit is far above what a shim ever has, and below the gigabyte from which
// on the Go runtime gives its own tables huge pages.
const heapLimit = 256 << 20

// uncollected calls f while nothing collects garbage, nor begins to. Without the
// limit, a collection that is let end with none to follow takes the heap for
// endless: two megabytes go to the first page of each table.
func uncollected(f func()) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(heapLimit))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f()
}

// trimEvery is how often memory is given back: a few milliseconds of work that the
// Go runtime, which thinks of larger programs, does not get to by itself.
const trimEvery = time.Minute

// Trim gives back, until ctx ends, the memory that busy moments have left: most of
// an agent's and a shim's life is waiting, next to somebody else's application. It
// does nothing during a fork: a collection would wait for one that hangs, and
// everybody else for the collection.
func Trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if forks.TryLock() {
			// Each collection halves the stacks that have grown.
			for range 3 {
				debug.FreeOSMemory()
			}
			forks.Unlock()
		}
	}
}
