// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

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
