// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

const (
	// mostWatched bounds the duration of one watch.
	mostWatched = 5 * time.Minute
	// slowestLook bounds the pauses while the watch is broken, because a person may look at a stream of values.
	slowestLook = 2 * time.Second
)

// follow is the one watch that all followers of the Variable share.
type follow struct {
	source
	tasks *tasks

	mu        sync.Mutex
	random    *rand.Rand
	followers int
	cancel    context.CancelFunc
	// state is the last state of the Variable. The field "gone" reports that somebody has deleted
	// the Variable. The channel "changed" is closed and replaced at each change.
	state   *kube.Variable
	gone    bool
	changed chan struct{}
}

// The function "later" reports whether the first argument is a later state than the second
// argument, which may be nil. The resourceVersions are growing numbers, even from a deleted Variable to
// the next one of the same name.
func later(state, before *kube.Variable) bool {
	if before == nil {
		return true
	}
	of := func(v *kube.Variable) uint64 {
		n, _ := strconv.ParseUint(v.ResourceVersion, 10, 64) // n is zero if the resourceVersion is not a number
		return n
	}
	return of(state) > of(before)
}

// The method "now" returns the last state, whether the Variable is gone, and the channel that is
// closed at the next change.
func (f *follow) now() (state *kube.Variable, gone bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.gone, f.changed
}

// begin counts a follower, and starts the watch for the first one.
func (f *follow) begin(first *kube.Variable) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers++
	if f.followers > 1 {
		return
	}
	ctx, end := context.WithCancel(f.tasks.ctx)
	f.state, f.gone, f.changed, f.cancel = first, false, make(chan struct{}), end
	random := rand.New(rand.NewPCG(f.random.Uint64(), f.random.Uint64())) // the watch before may still use its own
	f.tasks.start(func(context.Context) { f.watch(ctx, first, random) })
}

// The method "end" removes one follower, and ends the watch if no follower is left.
func (f *follow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followers--; f.followers == 0 {
		f.cancel()
	}
}

// watch follows the Variable from the given state on, until ctx ends or the Variable is gone.
func (f *follow) watch(ctx context.Context, first *kube.Variable, random *rand.Rand) {
	_ = kube.Follow(ctx, kube.Following{ // the error is that of ctx
		Read: func(ctx context.Context) (string, error) {
			if state := first; state != nil {
				first = nil
				return state.ResourceVersion, nil
			}
			state, err := f.read(ctx)
			if errors.Is(err, kube.ErrNotFound) {
				f.tell(ctx, nil, true)
				return "", kube.ErrDone
			}
			if err != nil {
				return "", err
			}
			f.tell(ctx, state, false)
			return state.ResourceVersion, nil
		},
		Watch: func(watching context.Context, version string) error {
			return f.Requests.WatchVariable(watching, f.Name, version, func(now *kube.Variable, gone bool) { f.tell(ctx, now, gone) })
		},
		Longest: mostWatched, Slowest: slowestLook, Random: random,
		Failed: func(err error) { f.Log.Debug("variable is out of sight", "variable", f.Name, "err", err) },
	})
}

// tell passes a state to all followers, unless the watch with this ctx has ended.
func (f *follow) tell(ctx context.Context, state *kube.Variable, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return // this watch has ended, and another watch may have begun
	}
	f.state, f.gone = state, f.gone || gone
	close(f.changed)
	f.changed = make(chan struct{})
}
