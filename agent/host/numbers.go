// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"runtime"
	"sync"
	"syscall"
)

// A pid file on a volume outlives its writer. PostgreSQL and other programs do not
// start while an unrelated process of that number and of the same user lives. Without a
// shim, the container's first process always has the same number, and finds only
// itself. The shim's child might find a thread of the shim, because the kernel accepts
// its number as that of a process. So the numbers of threads and of children are kept
// apart, in every container alike: first all threads, then a gap, then children.
const (
	// threads is the number of threads that a shim starts within its first seconds.
	threads = 7
	// gap is wider than the differences between containers. A container's threads
	// begin at a later number if the container runtime has used some numbers
	// before.
	gap = 32
)

// SpreadNumbers makes the threads, then the gap. If a fork fails for lack of a right or
// of memory, the numbers stay as they come.
func SpreadNumbers() {
	var ready, given sync.WaitGroup
	ready.Add(threads)
	release := make(chan struct{})
	for range threads {
		given.Go(func() {
			// A locked goroutine has a thread to itself. After the unlock, that
			// thread idles.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	close(release)
	// The Go runtime reuses only idle threads, so the next lines wait until no
	// goroutine holds one.
	given.Wait()
	for range gap {
		// Each fork uses up one process id, and ends because its exec finds no file. A fork
		// shares the shim's memory, so all forks together take 3 ms.
		if _, err := syscall.ForkExec("", []string{""}, &syscall.ProcAttr{}); err != syscall.ENOENT {
			return
		}
	}
}
