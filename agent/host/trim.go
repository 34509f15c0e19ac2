// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"runtime/debug"
	"time"
)

// trimEvery is the period in which memory is given back, a few milliseconds of work. The
// Go runtime, made for larger programs, does not do it in a small process.
const trimEvery = time.Minute

// Trim gives back, until ctx ends, the memory that busy moments have left. An agent and
// a shim mostly wait, next to somebody else's application. Trim does nothing during a
// fork: a collection would wait for a fork that hangs, and the whole process for the
// collection.
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
