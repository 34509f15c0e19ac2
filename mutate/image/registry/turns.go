// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"slices"
	"sync"
)

// turns bounds the concurrent look-ups of the process and of each namespace. In this package
// a turn is the permission of one look-up to run, and has nothing to do with rollouts. The
// namespace with the fewest running look-ups gets the next turn. So a namespace with many
// waiting look-ups delays no other namespace.
type turns struct {
	max, each, queue int

	mu      sync.Mutex
	taken   int
	running map[string]int
	waiting []*turn
}

type turn struct {
	namespace string
	given     chan struct{}
}

func newTurns(limit, each, queue int) *turns {
	return &turns{max: limit, each: each, queue: queue, running: map[string]int{}}
}

// take waits for a turn, and returns the function that gives the turn back.
func (t *turns) take(ctx context.Context, namespace string) (giveBack func(), err error) {
	mine, err := t.enter(namespace)
	if err != nil {
		return nil, err
	}
	giveBack = func() { t.giveBack(namespace) }
	select {
	case <-mine.given:
		return giveBack, nil
	case <-ctx.Done():
	}
	if !t.leave(mine) {
		giveBack() // the look-up got its turn while its context ended
	}
	return nil, context.Cause(ctx)
}

func (t *turns) enter(namespace string) (*turn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ahead := 0
	for _, w := range t.waiting {
		if w.namespace == namespace {
			ahead++
		}
	}
	if ahead >= t.queue {
		return nil, errBusy
	}
	mine := &turn{namespace: namespace, given: make(chan struct{})}
	t.waiting = append(t.waiting, mine)
	t.give()
	return mine, nil
}

// leave removes a look-up from the queue, and reports whether the look-up was still waiting.
func (t *turns) leave(mine *turn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.Index(t.waiting, mine)
	if i < 0 {
		return false
	}
	t.waiting = slices.Delete(t.waiting, i, i+1)
	return true
}

func (t *turns) giveBack(namespace string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	if t.running[namespace]--; t.running[namespace] == 0 {
		delete(t.running, namespace)
	}
	t.give()
}

// give gives free turns to waiting look-ups.
func (t *turns) give() {
	for t.taken < t.max {
		next := -1
		for i, w := range t.waiting {
			has := t.running[w.namespace]
			if has < t.each && (next < 0 || has < t.running[t.waiting[next].namespace]) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		w := t.waiting[next]
		t.waiting = slices.Delete(t.waiting, next, next+1)
		t.taken++
		t.running[w.namespace]++
		close(w.given)
	}
}
