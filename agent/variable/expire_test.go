// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lateEnd is a context that ends between two calls of Err. The context of a client's call may
// end in the same way.
type lateEnd struct {
	context.Context
	asked int
}

func (c *lateEnd) Err() error {
	if c.asked++; c.asked == 1 {
		return nil
	}
	return context.Canceled
}

func TestVariableCallThatExpiresIsAlwaysAnswered(t *testing.T) {
	t.Parallel()
	c := &call{ctx: &lateEnd{Context: context.Background()}, answer: make(chan Answer, 1)}
	c.until = time.Now().Add(time.Hour)
	if len(expire([]*call{c}, Unavailable)) == 0 {
		require.Len(t, c.answer, 1, "a call without an answer never returns, and keeps its place")
	}
}
