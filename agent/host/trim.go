// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"runtime/debug"
	"time"
)

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
