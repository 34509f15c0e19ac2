// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// flights joins concurrent look-ups of the same image. One look-up serves all waiting callers. If
// the last of these callers gives up, [flights.leave] cancels the look-up.
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
	one := f.enter(ctx, key, budget, begin)
	select {
	case <-one.done:
		return one.command, one.err
	case <-ctx.Done():
		f.leave(key, one)
		return image.Command{}, context.Cause(ctx)
	}
}

func (f *flights) enter(ctx context.Context, key string, budget time.Duration, begin lookUp) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
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
			f.end(key, one)
			close(one.done)
		}()
	}
	one.waiting++
	return one
}

func (f *flights) leave(key string, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.waiting--; one.waiting == 0 {
		f.close(key, one)
		one.cancel()
	}
}

func (f *flights) end(key string, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close(key, one)
}

// close removes a look-up from the map, so that no further caller joins the look-up. The caller of
// close must hold f.mu.
func (f *flights) close(key string, one *flight) {
	if f.going[key] == one {
		delete(f.going, key)
	}
}
