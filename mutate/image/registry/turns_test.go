// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNamespaceWithFewestImageLookUpsGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(2, 2, 10)
		first, err := turns.take(t.Context(), "evil")
		require.NoError(t, err)
		second, err := turns.take(t.Context(), "evil")
		require.NoError(t, err)
		order := make(chan string, 3)
		for _, namespace := range []string{"evil", "shop"} {
			go func() {
				giveBack, err := turns.take(t.Context(), namespace)
				assert.NoError(t, err)
				order <- namespace
				defer giveBack()
				<-t.Context().Done()
			}()
			synctest.Wait()
		}
		first()
		assert.Equal(t, "shop", <-order, "the namespace without a turn goes first")
		second()
		assert.Equal(t, "evil", <-order)
	})
}

func TestWaitingImageLookUpsAreBoundedPerNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1, 1, 3)
		giveBack, err := turns.take(t.Context(), "evil")
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		given := errors.New("given up")
		for range 3 {
			go func() {
				_, err := turns.take(ctx, "evil")
				assert.ErrorIs(t, err, given)
			}()
		}
		synctest.Wait()
		_, err = turns.take(t.Context(), "evil")
		require.ErrorIs(t, err, errBusy)
		cancel(given)
		synctest.Wait()
		assert.Empty(t, turns.waiting)
		giveBack()
		assert.Zero(t, turns.taken)
		assert.Empty(t, turns.running, "nothing is kept of namespaces that have no turn")
	})
}
