// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// Engine runs the events of a world, with the true time, the mutex and the random sources. Each
// event is a function, which runs with the mutex held.
type Engine struct {
	history
	mu sync.Mutex
	// Seed selects the story. The random sources of all actors derive from the seed.
	Seed uint64
	// Rng is the random source of the story. Only the goroutine that plays the story draws from it.
	Rng *rand.Rand
	// Group has the goroutines of all processes.
	Group sync.WaitGroup
	// serial is the last number that [Engine.Number] has returned.
	serial int
	// Ctx is the ancestor of every context of the world.
	Ctx    context.Context
	cancel context.CancelFunc
}

// New returns the engine of a seed. The caller must be in a synctest bubble.
func New(ctx context.Context, seed uint64) *Engine {
	e := &Engine{history: newHistory(), Seed: seed}
	e.Rng = e.Source("script")
	e.Ctx, e.cancel = context.WithCancel(ctx)
	return e
}

// Stop ends all contexts of the world. After that, no event begins.
func (e *Engine) Stop() { e.cancel() }

// Lock locks the mutex. With the mutex, a goroutine may read and change the whole world.
func (e *Engine) Lock() { e.mu.Lock() }

// Unlock unlocks the mutex.
func (e *Engine) Unlock() { e.mu.Unlock() }

// Number returns a number that the method has not returned before. The names of pods, children and
// objects contain such numbers.
func (e *Engine) Number() int {
	e.serial++
	return e.serial
}

// Source returns the random source of one actor. So an action of one actor changes no draw of
// another actor.
func (e *Engine) Source(actor string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return rand.New(rand.NewPCG(e.Seed, h.Sum64()))
}

// After schedules f to run when the duration has passed, with the mutex held.
func (e *Engine) After(d time.Duration, f func()) {
	time.AfterFunc(max(d, 1), func() {
		e.Lock()
		defer e.Unlock()
		if e.Ctx.Err() == nil {
			f()
		}
	})
}

// Pass waits for the duration, and returns false after a violation.
func (e *Engine) Pass(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.failed:
		return false
	}
}

// Until waits until f returns true. After the bound, or after a violation, Until waits no longer,
// and returns false. A longer bound means longer pauses between two calls of f.
func (e *Engine) Until(bound time.Duration, f func() bool) bool {
	for end := e.Now() + bound; ; {
		e.Lock()
		ok := f()
		e.Unlock()
		if ok {
			return true
		}
		if e.Now() >= end || !e.Pass(max(5*time.Millisecond, bound/20000)+time.Duration(e.Rng.IntN(1000))) {
			return false
		}
	}
}

// Do runs f with the mutex held, for a caller that does not hold the mutex.
func (e *Engine) Do(f func()) {
	e.Lock()
	defer e.Unlock()
	f()
}

// Between returns a random duration in [least, most), to the nanosecond.
func Between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// Chance returns true with the probability p.
func Chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

// Pick returns a random element of the slice.
func Pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
