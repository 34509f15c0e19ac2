// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// engine runs the events of a world, with the true time, the mutex and the random sources. Each
// event is a function, which runs with the mutex held.
type engine struct {
	history
	mu    sync.Mutex
	seed  uint64
	rng   *rand.Rand // only the goroutine that plays the story draws from it
	group sync.WaitGroup
	// serial is the last number that the method number returned.
	serial int
	// ctx is the ancestor of every context of the world.
	ctx    context.Context
	cancel context.CancelFunc
}

// newEngine returns the engine of a seed. The caller must be in a synctest bubble.
func newEngine(ctx context.Context, seed uint64) *engine {
	e := &engine{history: newHistory(), seed: seed}
	e.rng = e.source("script")
	e.ctx, e.cancel = context.WithCancel(ctx)
	return e
}

// lock locks the mutex, and unlock unlocks it.
func (e *engine) lock()   { e.mu.Lock() }
func (e *engine) unlock() { e.mu.Unlock() }

// number returns a number that the method has not returned before. The names of pods, children and
// objects contain such numbers.
func (e *engine) number() int {
	e.serial++
	return e.serial
}

// source returns the random source of one actor.
func (e *engine) source(actor string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return rand.New(rand.NewPCG(e.seed, h.Sum64()))
}

// after schedules f to run when the duration has passed, with the mutex held.
func (e *engine) after(d time.Duration, f func()) {
	time.AfterFunc(max(d, 1), func() {
		e.lock()
		defer e.unlock()
		if e.ctx.Err() == nil {
			f()
		}
	})
}

// pass waits for the duration, and returns false after a violation.
func (e *engine) pass(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.failed:
		return false
	}
}

// until waits until f returns true. If f does not return true within the bound, or after a
// violation, the result is false. The pauses between two calls of f grow with the bound.
func (e *engine) until(bound time.Duration, f func() bool) bool {
	for end := e.now() + bound; ; {
		e.lock()
		ok := f()
		e.unlock()
		if ok {
			return true
		}
		if e.now() >= end || !e.pass(max(5*time.Millisecond, bound/20000)+time.Duration(e.rng.IntN(1000))) {
			return false
		}
	}
}

// do runs f with the mutex held, for a caller that does not hold the mutex.
func (e *engine) do(f func()) {
	e.lock()
	defer e.unlock()
	f()
}

// between returns a random duration in [least, most), to the nanosecond.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
