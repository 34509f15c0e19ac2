// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// followed is an object that a test follows, with the instants of its requests since the beginning.
type followed struct {
	Following
	began          time.Time
	reads, watches []time.Duration
	failed         []error
	from           string // the version from which the next watch must begin
}

// follow follows an object for a time. Its reads and watches have the given outcomes.
func follow(t *testing.T, d time.Duration, read func(nth int) error, watch func(ctx context.Context) error, set ...func(*Following)) *followed {
	t.Helper()
	f := &followed{began: time.Now(), from: "7"}
	f.Following = Following{
		Read: func(context.Context) (string, error) {
			f.reads = append(f.reads, time.Since(f.began))
			return "7", read(len(f.reads))
		},
		Watch: func(ctx context.Context, version string) error {
			assert.Equal(t, f.from, version)
			f.watches = append(f.watches, time.Since(f.began))
			err := watch(ctx)
			if f.from = "7"; errors.Is(err, ErrGone) && version != "" {
				f.from = ""
			}
			return err
		},
		Longest: 24 * time.Minute, Random: rand.New(rand.NewPCG(1, 2)),
		Failed: func(err error) { f.failed = append(f.failed, err) },
	}
	for _, s := range set {
		s(&f.Following)
	}
	over := errors.New("over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, over)
	defer cancel()
	require.ErrorIs(t, Follow(ctx, f.Following), over)
	assert.Equal(t, d, time.Since(f.began), "the end of ctx ends each wait")
	return f
}

// lasting is a watch that ends after a time with an error, or with ctx.
func lasting(d time.Duration, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func silent(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func status(code int) error { return &StatusError{Code: code} }

func readable(int) error { return nil }

func TestFollowSendsFewRequestsWhileTheyFail(t *testing.T) {
	for name, c := range map[string]struct {
		read     error
		watch    func(context.Context) error
		perRound int
		untold   bool
	}{
		"refused reads":   {read: status(403), perRound: 1},
		"refused watches": {watch: lasting(0, status(403)), perRound: 2},
		"too old at once": {watch: lasting(0, status(410)), perRound: 3},
		"ended at once":   {watch: lasting(time.Millisecond, nil), perRound: 2, untold: true},
		"ended after 2 s": {watch: lasting(2*time.Second, nil), perRound: 2, untold: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, time.Hour, func(int) error { return c.read }, c.watch)
				assert.Equal(t, c.perRound*len(f.reads), len(f.reads)+len(f.watches))
				assert.Equal(t, c.untold, len(f.failed) == 0)
				assert.Less(t, f.reads[1], time.Second+3*time.Second, "the first pauses are short")
				late := 0
				for i, at := range f.reads[1:] {
					if at > time.Minute {
						late++
						gap := at - f.reads[i]
						assert.True(t, gap >= 10*time.Second && gap <= 17*time.Second, "%v", gap)
					}
				}
				assert.Greater(t, late, 59*60/17)
			})
		})
	}
}

func TestFollowPausesShortlyAfterALongWatch(t *testing.T) {
	for name, ends := range map[string]error{"ended": nil, "broken": errors.New("broken")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, time.Hour, readable, lasting(20*time.Second, ends))
				for i, at := range f.reads[1:] {
					assert.Less(t, at-f.reads[i]-20*time.Second, 200*time.Millisecond)
				}
				assert.Equal(t, ends != nil, len(f.failed) > 0)
			})
		})
	}
}

// Half of Longest spreads the ends of watches that began together.
func TestFollowReadsAgainAfterASilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, 24*time.Hour, readable, silent)
		assert.Empty(t, f.failed, "the end of the time for a watch is no failure")
		var shortest, longest time.Duration = time.Hour, 0
		for i, at := range f.reads[1:] {
			shortest, longest = min(shortest, at-f.reads[i]), max(longest, at-f.reads[i])
		}
		assert.GreaterOrEqual(t, shortest, 12*time.Minute)
		assert.Less(t, longest, 24*time.Minute+time.Second)
		assert.Greater(t, longest-shortest, 6*time.Minute)
	})
}

func TestFollowPausesAsTheAnswerDemands(t *testing.T) {
	retry := func(after time.Duration) error { return &StatusError{Code: 429, RetryAfter: after} }
	minute := func(f *Following) { f.Forbidden = time.Minute }
	for name, c := range map[string]struct {
		err      error
		set      func(*Following)
		min, max time.Duration
	}{
		"Retry-After":        {retry(20 * time.Second), nil, 20 * time.Second, 30 * time.Second},
		"a long Retry-After": {retry(time.Hour), nil, time.Minute, 90 * time.Second},
		"forbidden":          {status(403), minute, time.Minute, 90 * time.Second},
		"not forbidden":      {status(500), minute, 100 * time.Millisecond, 150 * time.Millisecond},
		"without spread":     {status(403), func(f *Following) { f.Forbidden, f.Random = time.Minute, nil }, time.Minute, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := []func(*Following){}
				if c.set != nil {
					set = append(set, c.set)
				}
				f := follow(t, 2*time.Minute, func(nth int) error {
					if nth == 1 {
						return c.err
					}
					return nil
				}, silent, set...)
				require.Len(t, f.reads, 2)
				assert.True(t, f.reads[1] >= c.min && f.reads[1] <= c.max, "%v", f.reads[1])
			})
		})
	}
}

func TestFollowBoundsPausesBySlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, time.Minute, func(int) error { return status(500) }, nil, func(f *Following) { f.Slowest = 2 * time.Second })
		assert.InDelta(t, 27, len(f.reads), 4)
	})
}

func TestFollowGoesOnAsItsRequestsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, reads := time.Now(), 0
		require.NoError(t, Follow(t.Context(), Following{
			Read: func(context.Context) (string, error) {
				if reads++; reads%2 == 0 {
					return "", ErrAgain
				}
				return "", nil
			},
			Watch: func(context.Context, string) error {
				if reads > 20 {
					return ErrDone
				}
				return ErrAgain
			},
			Longest: time.Hour,
			Failed:  func(err error) { assert.NoError(t, err) },
		}))
		assert.Equal(t, 21, reads)
		assert.Zero(t, time.Since(began))
	})
}
