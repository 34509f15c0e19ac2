// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestImageCacheForgetsTheLeastRecentlyUsedEntry(t *testing.T) {
	c := newCache(2*(entryCost+1), func(int) int { return 0 })
	now := time.Now()
	c.put("a", 1, now)
	c.put("b", 2, now)
	_, _, ok := c.get("a")
	require.True(t, ok)
	c.put("c", 3, now)
	_, _, ok = c.get("b")
	assert.False(t, ok)
	got, _, ok := c.get("a")
	assert.True(t, ok)
	assert.Equal(t, 1, got)
	c.put("a", 4, now)
	got, _, _ = c.get("a")
	assert.Equal(t, 4, got)
	c.drop("a")
	_, _, ok = c.get("a")
	assert.False(t, ok)
}

func TestImageCacheIsBoundedInBytes(t *testing.T) {
	c := newCache(10*entryCost, func(words []byte) int { return len(words) })
	now := time.Now()
	for i := range 100 {
		c.put(string(rune('a'+i)), make([]byte, entryCost-4), now)
		assert.LessOrEqual(t, c.held, c.max)
	}
	assert.Len(t, c.entries, 5, "each takes its own bytes and those of an entry")
	c.put("large", make([]byte, 11*entryCost), now)
	assert.Empty(t, c.entries, "what does not fit is not kept")
	assert.Zero(t, c.held)
	c.put("a", make([]byte, 1), now)
	c.put("a", make([]byte, 2), now)
	assert.Equal(t, entryCost+1+2, c.held, "what is replaced counts no more")
}
