// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// flights joins concurrent look-ups of the same image. One look-up serves all waiting callers, and ends when the
// last of them gives up. With golang.org/x/sync/singleflight it would go on: then hung-up calls could queue
// look-ups and credentials without a share of the load.
type flights struct {
	mu    sync.Mutex
	going map[string]*flight
}

type flight struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{}
	command image.Command
	err     error
}

type lookUp func(context.Context) (image.Command, error)

// join waits for the look-up of a key, and begins the look-up if no caller has begun it.
func (f *flights) join(ctx context.Context, key string, budget time.Duration, begin lookUp) (image.Command, error) {
	f.mu.Lock()
	one, ok := f.going[key]
	if !ok {
		// The first caller may give up while others wait. So the look-up does not end
		// with that caller's context.
		its, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), budget, late{budget})
		one = &flight{cancel: cancel, done: make(chan struct{})}
		if f.going == nil {
			f.going = map[string]*flight{}
		}
		f.going[key] = one
		go func() {
			defer cancel()
			one.command, one.err = begin(its)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.forget(key, one)
			close(one.done)
		}()
	}
	one.waiting++
	f.mu.Unlock()
	select {
	case <-one.done:
		return one.command, one.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.waiting--; one.waiting == 0 {
		f.forget(key, one)
		one.cancel()
	}
	return image.Command{}, context.Cause(ctx)
}

// forget lets no further caller join a look-up. The caller holds f.mu.
func (f *flights) forget(key string, one *flight) {
	if f.going[key] == one {
		delete(f.going, key)
	}
}
