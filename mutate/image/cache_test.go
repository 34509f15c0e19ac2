// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCacheForgetsWhatWasUsedLongestAgo(t *testing.T) {
	c := newCache[int](2)
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
