// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

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
