// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"runtime/debug"
	"time"
)

// trimEvery is the period in which Trim gives memory back to the kernel. Each time takes
// a few milliseconds. The Go runtime is made for larger programs, and gives no memory of
// a small process back.
const trimEvery = time.Minute

// Trim gives back, until ctx ends, the memory that busy moments have left. An agent or
// shim mostly waits, so the memory is of more use to the application beside it. Trim
// does nothing during a fork. Otherwise a garbage collection would wait for a fork that
// hangs, and the whole process would wait for the collection.
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
