// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leash

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

// Gate is the agent's end of the connections to the pod's shims. agent/gate implements Gate.
type Gate interface {
	// Reports delivers the whole state of a shim whenever that state changes.
	Reports() <-chan gate.Report
	Grant(shim gate.ShimID, grant gate.Grant) error
	Drain(shim gate.ShimID, reason string, grace time.Duration) error
}

// Config has the settings of a Leash. All fields but Log are needed.
type Config struct {
	Gate   Gate
	Budget api.Budget
	BootID string
	// Clock returns the time since boot (CLOCK_BOOTTIME).
	Clock  func() time.Duration
	Random rand.Source
	Log    *slog.Logger
}

// Leash gives and prolongs the grants of the pod's shims. A nil *Leash belongs to a pod without
// shims.
type Leash struct {
	config Config
	random *rand.Rand
	// wake delivers a value when a claim has changed. The field "leaps" delivers the number of
	// leaps so far when a shim reports a leap.
	wake  chan struct{}
	leaps chan int

	mu    sync.Mutex
	state state
}

// New returns a leash without claims. No goroutine starts before [Leash.Run].
func New(c Config) *Leash {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Leash{config: c, random: rand.New(c.Random), wake: make(chan struct{}, 1), leaps: make(chan int, 1)}
	l.state = newState(c.Budget, func() string { return fmt.Sprintf("leash-%016x", l.random.Uint64()) })
	return l
}

// Add adds a claim without a hold, and returns the index of the claim. The caller adds all claims
// before [Leash.Run].
func (l *Leash) Add() (claim int) {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.add()
}

// Tie remembers the state of a claim, which the caller names by its index. All present shims become
// tied to the claim's hold if the argument "join" is true, or if the claim had no hold before. The
// result reports whether the grant of each tied shim ends by the deadline of the hold. If not, the
// caller must renew the hold before it answers that the hold is good.
func (l *Leash) Tie(claim int, t Tie, join bool) (covered bool) {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	return l.state.tie(claim, t, join)
}

// Break remembers that a hold of the claim has ended although no program has given it back. The
// programs that may know the hold are killed.
func (l *Leash) Break(claim int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	l.state.breaks(claim)
}

// Retire remembers that the caller's loop for the claim has ended, and that the pod has no hold of that
// claim.
func (l *Leash) Retire(claim int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	l.state.retire(claim)
}

// Leaps delivers the number of leaps of the wall clock that shims have reported so far. The
// caller makes each claim note the leap, and then passes that number in [Tie.Leaps].
func (l *Leash) Leaps() <-chan int {
	if l == nil {
		return nil
	}
	return l.leaps
}

func (l *Leash) changed() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run gives and prolongs grants until ctx ends.
func (l *Leash) Run(ctx context.Context) {
	for {
		timer := time.NewTimer(l.act())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case r := <-l.config.Gate.Reports():
			l.learn(r)
		case <-l.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// learn stores the report of a shim. If the report contains a new leap, learn announces the leap.
func (l *Leash) learn(r gate.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.learn(r) {
		return
	}
	select {
	case <-l.leaps: // only the newest number of leaps counts
	default:
	}
	l.leaps <- l.state.leaps
}

// act sends the orders that are due, and returns the time until the next ones are due.
func (l *Leash) act() time.Duration {
	// The method "act" reads the clock under the mutex, so each later call of Tie comes after the
	// instant "now".
	l.mu.Lock()
	now := l.config.Clock()
	orders, at := l.state.next(now)
	l.mu.Unlock()
	for _, o := range orders {
		if err := l.send(o); err != nil {
			l.config.Log.Warn("order to a shim was not sent", "shim", o.shim, "err", err)
			l.mu.Lock()
			l.state.missed(o, gate.Unsent(err), now)
			l.mu.Unlock()
			at = min(at, now+l.config.Budget.Retry)
		}
	}
	return instant.Sleep(l.config.Clock(), at)
}

func (l *Leash) send(o order) error {
	if o.kill {
		l.config.Log.Info("killing a program, because its pod has lost a hold", "shim", o.shim)
		return l.config.Gate.Drain(o.shim, "the pod has lost a hold of the local API", 0)
	}
	return l.config.Gate.Grant(o.shim, gate.Grant{
		Hold: o.number, Deadline: o.deadline, BootID: l.config.BootID, Kill: l.config.Budget.Kill, Leap: o.leap,
	})
}
