// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"
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

// A pid file on a volume outlives its writer. PostgreSQL and other servers do not start if the
// process id in their file belongs to another process of the same user. Without a shim, the
// container's first process always has the same process id, so the id in the file is its own.
// With a shim, that id might belong to a thread of the shim, because the kernel accepts a thread's
// id as a process id. So every shim separates the ids of its threads from those of its children:
// first all threads, then a gap, then children.
const (
	// threads is the number of threads that a shim starts within its first seconds.
	threads = 7
	// gap is the least number of unused ids between the threads and the children. The container
	// runtime may use some ids before a shim starts. So the ids of the threads differ between
	// two containers, but by less than gap.
	gap = 32
)

// SpreadNumbers starts the threads, and then uses up the next ids by forks. These ids become the
// gap. On a busy machine the Go runtime may start another thread between two forks. Then
// SpreadNumbers makes another gap, at most three times. If a fork fails for lack of a right or of
// memory, the gap has fewer ids.
func SpreadNumbers() {
	var ready, given sync.WaitGroup
	ready.Add(threads)
	release := make(chan struct{})
	for range threads {
		given.Go(func() {
			// A locked goroutine has a thread that no other goroutine uses. After the unlock,
			// that thread idles.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	close(release)
	// The Go runtime reuses only idle threads. So SpreadNumbers waits until each of the new
	// threads is idle.
	given.Wait()
	separate(newestThread, func() bool { return useUp(gap) })
}

// separate makes a gap of ids, and makes another gap each time that a thread has started meanwhile. At
// most four gaps are made. The function "newest" returns the largest id of a thread. The function "use"
// uses up the ids of a gap; a false result ends the attempts.
func separate(newest func() int, use func() bool) {
	last := newest()
	for range 4 {
		if !use() {
			return
		}
		before := last
		if last = newest(); last == before {
			return
		}
	}
}

// useUp uses up n process ids. If a fork fails for lack of a right or of memory, useUp stops, and
// the result is false.
func useUp(n int) bool {
	for range n {
		// Each fork uses up one process id, and ends because its exec finds no file. A fork
		// shares the memory of the shim, so 32 forks together take only 3 ms.
		if _, err := syscall.ForkExec("", []string{""}, &syscall.ProcAttr{}); err != syscall.ENOENT {
			return false
		}
	}
	return true
}

// newestThread returns the largest id of a thread of this process. Without /proc the result is 0.
func newestThread() (id int) {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		n, _ := strconv.Atoi(t.Name())
		id = max(id, n)
	}
	return id
}

// trimEvery is the time between two trims, each of which takes a few milliseconds. The Go
// runtime is made for larger processes, and returns no memory of a small process to the kernel.
const trimEvery = time.Minute

// trimFrom is the number of allocated bytes from which a trim gives back more than the trim costs.
const trimFrom = 256 << 10

// Trim gives the memory of busy moments back to the kernel, until ctx ends. An agent or a shim
// mostly waits, so the application beside it has more use for the memory. Trim does nothing
// during a fork, which may hang. A garbage collection would wait for the fork, and the whole
// process would wait for the collection. Reading the statistics of the memory would wait, too.
func Trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var trimmed uint64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if forks.TryLock() {
			trimmed = trim(trimmed)
			forks.Unlock()
		}
	}
}

// trim gives memory back to the kernel, unless the process has allocated too little since the last
// trim. The argument "before" is the number of bytes that the process had allocated by the last
// trim. The result is the number for the next call.
func trim(before uint64) uint64 {
	var now runtime.MemStats
	if runtime.ReadMemStats(&now); now.TotalAlloc-before < trimFrom {
		return before
	}
	// Each collection halves the stacks that have grown, so trim runs several collections.
	for range 3 {
		debug.FreeOSMemory()
	}
	return now.TotalAlloc
}
