// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFileLockWaitsUntilTheFileIsUnlocked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), file, func() { t.Error("nobody else has it") })
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = Lock(ctx, file, cancel)
	require.ErrorIs(t, err, context.Canceled, "told to wait, and gave up")

	waiting := make(chan struct{})
	taken := make(chan error)
	go func() {
		unlock, err := Lock(t.Context(), file, func() { close(waiting) })
		if err == nil {
			unlock()
		}
		taken <- err
	}()
	<-waiting
	unlock()
	assert.NoError(t, <-taken)
}

func TestPollErrorContainsPurposeAndLastError(t *testing.T) {
	calls := 0
	require.NoError(t, Poll(t.Context(), time.Minute, "it", func() error {
		calls++
		if calls < 3 {
			return os.ErrNotExist
		}
		return nil
	}))
	err := Poll(t.Context(), time.Millisecond, "the kettle", func() error { return os.ErrNotExist })
	assert.EqualError(t, err, "wait for the kettle: file does not exist")
}
