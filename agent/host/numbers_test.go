// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

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
