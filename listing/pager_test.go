// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each namespace has a worker, and each kind of object has an informer.
func TestOnlyOnePageIsReadAtOnce(t *testing.T) {
	p := NewPager()
	var readers sync.WaitGroup
	var inside, most atomic.Int32
	for range 8 {
		readers.Go(func() {
			for range 100 {
				assert.NoError(t, p.Each(t.Context(), func(context.Context, int64, string) (string, error) {
					most.Store(max(most.Load(), inside.Add(1)))
					runtime.Gosched()
					inside.Add(-1)
					return "", nil
				}))
			}
		})
	}
	readers.Wait()
	assert.Equal(t, int32(1), most.Load())
	ended, end := context.WithCancel(t.Context())
	end()
	p.reading <- struct{}{}
	require.ErrorIs(t, p.Each(ended, nil), context.Canceled)
}
