// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// A [Following] returns these errors to say how [Follow] goes on.
var (
	// ErrDone ends Follow, which then returns nil.
	ErrDone = errors.New("nothing more is to be seen")
	// ErrAgain begins with the next read at once: it is of another object.
	ErrAgain = errors.New("another object is to be read")
	// ErrBack begins with the next read after a pause: what was read is of no use. It is no failure.
	ErrBack = errors.New("an earlier object is to be read")
)

const (
	// A watch that ends earlier counts as a failure, so it causes no more load than a refused one. A read
	// counts as no success, because a server may answer reads and refuse watches.
	goodWatch = pace.Slowest
	// longestRetryAfter bounds the pause that a server can request.
	longestRetryAfter = time.Minute
)

// Following is how [Follow] sees one object. Each field but Slowest, Forbidden and Random must be set.
type Following struct {
	// Read reads the object, and returns the version from which the watch begins; empty if there is none.
	Read func(ctx context.Context) (version string, err error)
	// Watch watches the object until the watch ends, or ctx does. From an empty version it begins with the
	// present state, or with an older one, so Watch drops what is not [Later] than the last state.
	Watch func(ctx context.Context, version string) error
	// Longest bounds one watch, because a watch may fall silent without an error, and because the API
	// server checks the right to watch only at the start.
	Longest time.Duration
	// Slowest bounds the pauses after failures; zero means [pace.Slowest].
	Slowest time.Duration
	// Forbidden is the pause while the pod has no right to the object; zero means that it is as any other
	// failure, which enroll ends soon.
	Forbidden time.Duration
	// Random, if not nil, spreads the pauses and the ends of watches, which otherwise come together in
	// all pods. It is used only during the call.
	Random *rand.Rand
	// Failed gets each error but [ErrBack].
	Failed func(err error)
}

// Follow reads the object, watches it from the version of that read, and begins anew after each end of
// the watch, until ctx ends or a request returns [ErrDone]. So no state between read and watch is missed,
// and events that a proxy or a silent server keeps back delay the follower by no more than Longest. The
// pauses grow from failure to failure ([pace.Backoff]), until a watch has lasted; a Retry-After of the API
// server prolongs them. If ctx ends, Follow returns the cause of that end.
//
// An API server forgets the versions of an object that nobody writes: its watch cache begins anew with its
// process, and is short. After [ErrGone], Follow watches without a version, because each further read would
// return the same forgotten version, and the follower would read for ever. Only an object that is deleted
// between the read and that watch is missed, until the next read. Rejected: to watch without a version from
// the beginning, because such a watch misses the states between; and to go on from the last event of a watch
// that has ended, because events may be lost.
func Follow(ctx context.Context, f Following) error {
	for misses := 0; ; {
		lasted, err := f.look(ctx)
		switch {
		case errors.Is(err, ErrDone):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrAgain):
			continue
		case err != nil && !errors.Is(err, ErrBack):
			f.Failed(err)
		}
		if lasted >= goodWatch {
			misses = 0
		}
		select {
		case <-time.After(f.pause(misses, err)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		misses++
	}
}

// Later reports whether the resourceVersion is later than the other, which may be empty. They are growing
// numbers, even from a deleted object to the next one of the same name.
func Later(version, than string) bool {
	of := func(v string) uint64 {
		n, _ := strconv.ParseUint(v, 10, 64) // n is zero if v is not a number
		return n
	}
	return of(version) > of(than)
}

// look reads the object, and watches it. The end of the time for the watch is no error.
func (f Following) look(ctx context.Context) (lasted time.Duration, err error) {
	version, err := f.Read(ctx)
	if err != nil {
		return 0, err
	}
	longest, began := f.Longest, time.Now()
	if f.Random != nil {
		longest = longest/2 + f.upTo(longest/2)
	}
	bounded, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	err = f.Watch(bounded, version)
	if errors.Is(err, ErrGone) && version != "" {
		err = f.Watch(bounded, "")
	}
	if bounded.Err() != nil && !errors.Is(err, ErrDone) && !errors.Is(err, ErrAgain) {
		err = nil
	}
	return time.Since(began), err
}

// pause returns the time until the next look.
func (f Following) pause(misses int, err error) time.Duration {
	pause := min(pace.Backoff(misses), cmp.Or(f.Slowest, pace.Slowest))
	if f.Forbidden > 0 && errors.Is(err, ErrForbidden) {
		pause = f.Forbidden
	}
	if refusal, ok := errors.AsType[*StatusError](err); ok {
		pause = max(pause, min(refusal.RetryAfter, longestRetryAfter))
	}
	return pause + f.upTo(pause/2)
}

// upTo returns a random duration below the bound, or zero.
func (f Following) upTo(bound time.Duration) time.Duration {
	if f.Random == nil {
		return 0
	}
	return time.Duration(f.Random.Int64N(int64(bound)))
}
