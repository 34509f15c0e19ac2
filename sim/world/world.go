// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// World is everything outside of the programs under test. One mutex guards the world;
// whatever happens in the world happens in a function that holds the mutex.
type World struct {
	mu    sync.Mutex
	seed  uint64
	start time.Time
	rng   *rand.Rand // of the script alone
	group sync.WaitGroup
	// every context of the world descends from this one.
	ctx    context.Context
	cancel context.CancelFunc

	api     *server
	weather weather
	calm    bool          // nobody makes trouble, children included
	healed  time.Duration // the instant at which trouble ended last
	// latest bounds the time from the sending of a request to its arrival.
	latest time.Duration
	// optedOut: the namespace has lost the label with which it was opted in.
	optedOut bool
	nodes    []*node
	pods     []*pod // those with a process or an object left
	electors []*elector
	enrolls  []*Enroller
	serial   int
	// reconciler makes what an Enroller runs.
	reconciler func(*Enroller) Reconciler
	remembered remembered // by the model of enroll

	ledger     checks
	history    []moment
	failed     chan struct{} // closed at the first violation
	verdict    string
	failedAt   time.Duration
	failedLine int
}

// moment is one line of the history, formatted only if somebody reads it.
type moment struct {
	at   time.Duration
	who  string
	what string
	args []any
}

// New returns the world of a seed, in a synctest bubble. Each process of enroll runs
// what enroll returns.
func New(ctx context.Context, seed uint64, enroll func(*Enroller) Reconciler) *World {
	w := &World{seed: seed, start: time.Now(), failed: make(chan struct{}), reconciler: enroll, remembered: remembered{}}
	w.rng = w.source("script")
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.api = newServer(w)
	w.ledger = newChecks()
	w.weather, w.calm, w.latest = fair, true, latest
	return w
}

// Play runs the story of the seed, up to the first violation, and ends the world. Odd
// seeds play chaos, even ones the table, so that a seed's number says everything about
// a failure.
func (w *World) Play() {
	defer w.end()
	var story interface{ run() }
	w.do(func() {
		if w.seed%2 == 0 {
			story = w.newTable()
		} else {
			story = w.newChaos()
		}
	})
	story.run()
}

// PlayRollouts runs the story of the seed in which pods of several revisions compete.
func (w *World) PlayRollouts() {
	defer w.end()
	var story *rolling
	w.do(func() { story = w.newRolling() })
	story.run()
}

// Verdict returns the invariant that was violated first, with its instant. An empty
// verdict means none.
func (w *World) Verdict() (string, time.Duration) { return w.verdict, w.failedAt }

// source returns the random source of one actor.
func (w *World) source(actor string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(actor))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// now returns the true time since the beginning.
func (w *World) now() time.Duration { return time.Since(w.start) }

// after runs f with the mutex held.
func (w *World) after(d time.Duration, f func()) {
	time.AfterFunc(max(d, 1), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ctx.Err() == nil {
			f()
		}
	})
}

// note adds a line to the history. Called with the mutex held.
func (w *World) note(who, what string, args ...any) {
	w.history = append(w.history, moment{at: w.now(), who: who, what: what, args: args})
}

// violate ends the run. Called with the mutex held.
func (w *World) violate(invariant, what string, args ...any) {
	w.note("INVARIANT", invariant+": "+what, args...)
	if w.verdict != "" {
		return
	}
	w.failedAt, w.failedLine = w.now(), len(w.history)
	w.verdict = "invariant " + invariant + ": " + fmt.Sprintf(what, args...)
	close(w.failed)
}

// pass lets time go by, and returns false if the run has failed.
func (w *World) pass(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.failed:
		return false
	}
}

// until waits for a condition, and returns false if it does not hold within the bound.
// Short bounds have a check every few milliseconds, longer ones have fewer.
func (w *World) until(bound time.Duration, f func() bool) bool {
	for end := w.now() + bound; ; {
		w.mu.Lock()
		ok := f()
		w.mu.Unlock()
		if ok {
			return true
		}
		if w.now() >= end || !w.pass(max(5*time.Millisecond, bound/20000)+time.Duration(w.rng.IntN(1000))) {
			return false
		}
	}
}

// do runs f with the mutex held, for the script.
func (w *World) do(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// end stops everything and waits for it.
func (w *World) end() {
	w.do(func() {
		for _, p := range w.pods {
			for _, a := range p.agents {
				a.die()
			}
			p.endWait()
			for _, c := range p.containers {
				for _, s := range c.shims {
					s.die()
				}
			}
		}
		for _, e := range w.enrolls {
			e.die()
		}
		w.cancel()
	})
	w.group.Wait()
}

// History returns the whole history.
func (w *World) History() string { return format(w.history) }

// Tail returns the last n lines of the history up to the violation, if there is one.
func (w *World) Tail(n int) string {
	to := len(w.history)
	if w.verdict != "" {
		to = w.failedLine
	}
	return format(w.history[max(0, to-n):to])
}

func format(history []moment) string {
	var out []byte
	for _, m := range history {
		out = fmt.Appendf(out, "%14.6fs  %-18s %s\n", m.at.Seconds(), m.who, fmt.Sprintf(m.what, m.args...))
	}
	return string(out)
}

// between returns a random duration in [least, most), to the nanosecond.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
