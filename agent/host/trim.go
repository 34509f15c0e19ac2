// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"runtime/debug"
	"time"
)

// trimEvery is the time between two trims, each of which takes a few milliseconds. The Go
// runtime is made for larger processes, and returns no memory of a small process to the kernel.
const trimEvery = time.Minute

// Trim gives the memory of busy moments back to the kernel, until ctx ends. An agent or a shim
// mostly waits, so the application beside it has more use for the memory. Trim does nothing
// during a fork, which may hang. A garbage collection would wait for the fork, and the whole
// process would wait for the collection.
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
			// Each collection halves the stacks that have grown, so Trim runs several collections.
			for range 3 {
				debug.FreeOSMemory()
			}
			forks.Unlock()
		}
	}
}
