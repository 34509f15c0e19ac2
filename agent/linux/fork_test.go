// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
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

func TestNewestThreadHasTheLargestId(t *testing.T) {
	const started = 20
	ids := make(chan int, started)
	release := make(chan struct{})
	var all sync.WaitGroup
	for range started {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ids <- syscall.Gettid()
			<-release
		})
	}
	var living []int
	for range started {
		living = append(living, <-ids)
	}
	assert.GreaterOrEqual(t, newestThread(), slices.Max(living))
	close(release)
	all.Wait()
}

// On a busy machine the Go runtime starts threads between the forks. Then the ids of these threads lie
// inside the gap, or behind it.
func TestThreadInsideAGapCausesAnotherGap(t *testing.T) {
	for name, c := range map[string]struct {
		// newest has the largest id of a thread before the first gap, and after each gap.
		newest []int
		fails  bool
		gaps   int
	}{
		"no thread starts":           {newest: []int{9, 9}, gaps: 1},
		"a thread starts":            {newest: []int{9, 12, 12}, gaps: 2},
		"threads start twice":        {newest: []int{9, 12, 60, 60}, gaps: 3},
		"threads start all the time": {newest: []int{9, 12, 60, 99, 140}, gaps: 4},
		"no fork succeeds":           {newest: []int{9, 12}, fails: true, gaps: 1},
	} {
		t.Run(name, func(t *testing.T) {
			gaps := 0
			separate(func() int { return c.newest[gaps] }, func() bool {
				gaps++
				return !c.fails
			})
			assert.Equal(t, c.gaps, gaps)
		})
	}
}

func TestTrimCollectsOnlyAfterAllocations(t *testing.T) {
	collections := func(before uint64) (uint32, uint64) {
		var began, ended runtime.MemStats
		runtime.ReadMemStats(&began)
		after := trim(before)
		runtime.ReadMemStats(&ended)
		return ended.NumForcedGC - began.NumForcedGC, after
	}
	allocate := func() { garbage = make([]byte, trimFrom) }
	allocate()
	ran, before := collections(0)
	assert.EqualValues(t, 3, ran)
	ran, again := collections(before)
	assert.Zero(t, ran)
	assert.Equal(t, before, again)
	allocate()
	ran, _ = collections(again)
	assert.EqualValues(t, 3, ran)
}

// garbage makes an allocation that the compiler cannot remove.
var garbage []byte
