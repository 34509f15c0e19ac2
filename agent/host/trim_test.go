// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

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
