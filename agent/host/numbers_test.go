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
