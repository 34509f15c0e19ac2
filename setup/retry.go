// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"fmt"
	"time"
)

// betweenReads is the time between two reads of a state that takes seconds to change.
const betweenReads = 200 * time.Millisecond

// Retry repeats a failing function until the context ends, and then returns the
// last error.
func Retry(ctx context.Context, do func() error) error {
	ticker := time.NewTicker(betweenReads)
	defer ticker.Stop()
	var last error
	for {
		err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", last, ctx.Err())
		case <-ticker.C:
		}
	}
}
