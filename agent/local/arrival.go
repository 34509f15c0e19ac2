// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/api"
)

// countsOn is the time for which the pod still counts at the barrier after the pod's last call has
// ended. A program that repeats its call may wait for a second between two calls. During that
// second the pod still counts, so the pod need not arrive anew at each call.
const countsOn = 2 * time.Second

// arrival waits at one barrier on behalf of all programs of the pod. The pod makes one arrival,
// however many calls wait. Only the goroutine of the method "run" uses the fields random, calls,
// idle and leave.
type arrival struct {
	config Config
	of     api.Barrier
	leases []string
	budget api.Budget
	posts  chan func()
	// The channel "opened" is closed once the barrier is open. The channel "ended" is closed at the
	// end of the method run.
	opened, ended chan struct{}
	openedOnce    sync.Once
	// The field "until" is the instant until which the pod counts at the barrier, by
	// CLOCK_BOOTTIME. [wait.Barrier] reads this field before each write, because Go's timers stop
	// while the machine sleeps.
	until atomic.Int64
	looks looks

	random *rand.Rand
	// The field "calls" counts the calls that wait. When the last call has ended, idle delivers a
	// value at the end of the time [countsOn].
	calls int
	idle  <-chan time.Time
	// The function "leave" ends the present wait of [wait.Barrier]; nil without such a wait. At
	// the end of the wait, the channel "over" delivers the result.
	leave context.CancelFunc
	over  chan error
}

func newArrival(c Config, budget api.Budget, of api.BarrierArgs) *arrival {
	return &arrival{
		config: c, of: of.Barrier, leases: of.Leases(), budget: budget, random: rand.New(c.Random()), posts: make(chan func()),
		looks:  looks{turn: make(chan struct{}, 1), pace: pace.Pace{Every: looksEvery, Burst: looksBurst}},
		opened: make(chan struct{}), ended: make(chan struct{}), over: make(chan error, 1),
	}
}

// run makes the pod arrive at the barrier while calls wait. When the channel "stop" is closed or
// ctx ends, run returns, and the pod no longer counts at the barrier.
func (a *arrival) run(ctx context.Context, stop <-chan struct{}) {
	defer close(a.ended)
	defer func() {
		if a.leave != nil {
			a.leave()
			if err := <-a.over; err != nil {
				a.config.Log.Debug("the wait at the barrier ends", "barrier", a.of.String(), "err", err)
			}
		}
	}()
	for {
		select {
		case f := <-a.posts:
			f()
		case <-a.idle:
			a.idle = nil
			if a.leave != nil {
				a.leave()
			}
		case err := <-a.over:
			a.leave()
			a.leave = nil
			if err == nil {
				a.open()
			}
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
		if a.calls > 0 && a.leave == nil && !a.isOpen() {
			a.arrive(ctx)
		}
	}
}

// arrive begins a [wait.Barrier]. During that wait the pod counts at the barrier.
func (a *arrival) arrive(ctx context.Context) {
	ctx, a.leave = context.WithCancel(ctx)
	config := wait.BarrierConfig{
		API: a.config.Barriers, Leases: a.leases, Duration: a.config.LeaseDuration, PodName: a.config.PodName, PodUID: a.config.PodUID,
		Clock: a.config.Clock, Counts: func(now time.Duration) bool { return now < time.Duration(a.until.Load()) }, Opened: a.open,
		Log: notices{a.config.Log, a.of.String()}, Random: rand.NewPCG(a.random.Uint64(), a.random.Uint64()),
	}
	go func() { a.over <- wait.Barrier(ctx, config) }()
}

// open remembers that the barrier is open. From now on no program's call causes a request to the API
// server. It may be called concurrently.
func (a *arrival) open() {
	a.openedOnce.Do(func() {
		a.config.Log.Info("open", "barrier", a.of.String())
		close(a.opened)
	})
}

// isOpen reports whether this process has seen the record of the open barrier.
func (a *arrival) isOpen() bool {
	select {
	case <-a.opened:
		return true
	default:
		return false
	}
}

// post makes the loop call f. The result is false if the loop has ended, and will not call f.
func (a *arrival) post(f func()) bool {
	called := make(chan struct{})
	g := func() {
		f()
		close(called)
	}
	select {
	case a.posts <- g:
		<-called
		return true
	case <-a.ended:
		return false
	}
}

// wait keeps the pod counted at the barrier until the barrier is open, or until ctx ends. The
// result is nil only if the barrier is open.
func (a *arrival) wait(ctx context.Context) *problem {
	var refusal *problem
	come := func() {
		if a.calls >= mostBids {
			refusal = tooManyProblem
			return
		}
		a.calls++
		a.idle = nil
		a.until.Store(int64(pace.Never))
	}
	switch {
	case !a.post(come):
		return stoppingProblem
	case refusal != nil:
		return refusal
	}
	defer a.post(a.depart)
	select {
	case <-a.opened:
	case <-ctx.Done():
	case <-a.ended:
		return stoppingProblem
	}
	if !a.isOpen() {
		return closedProblem
	}
	return nil
}

// depart remembers the end of a call. After the end of the last call, the pod counts at the barrier
// only for the time [countsOn].
func (a *arrival) depart() {
	a.calls--
	if a.calls == 0 {
		a.idle = time.After(countsOn)
		a.until.Store(int64(a.config.Clock() + countsOn))
	}
}

// notices is a writer that logs each line that [wait.Barrier] writes.
type notices struct {
	log     *slog.Logger
	barrier string
}

// Write implements [io.Writer].
func (l notices) Write(line []byte) (int, error) {
	l.log.Info(strings.TrimSpace(string(line)), "barrier", l.barrier)
	return len(line), nil
}
