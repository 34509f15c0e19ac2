// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The function "uncollected" sets a memory limit, so that the Go runtime uses no huge pages. With
// huge pages, a shim's memory grows from two to four megabytes after some starts of its child.
func TestForkAddsNoHugePagesToTheProcess(t *testing.T) {
	// The flag hg means that the process advises huge pages for the mapping, even if this
	// kernel has none.
	huge := func() int {
		maps, err := os.ReadFile("/proc/self/smaps")
		require.NoError(t, err)
		return strings.Count(string(maps), " hg")
	}
	before := huge()
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for range 30 {
			runtime.GC()
		}
	}()
	for running := true; running; {
		uncollected(func() {})
		select {
		case <-collected:
			running = false
		default:
		}
	}
	assert.Equal(t, before, huge())
	assert.EqualValues(t, heapLimit, debug.SetMemoryLimit(-1), "a limit that is lifted can be missed")
}
