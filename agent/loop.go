// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/proof"
	"github.com/metaparticle-io/metaparticle/api"
)

// ErrGateClosed: the gate ended under a running agent.
var ErrGateClosed = errors.New("agent: the gate is closed")

// Agent holds the slots of one pod. One goroutine, that of [Agent.Run], decides
// everything; the others carry requests and bring answers.
type Agent struct {
	config Config
	self   lease.Self
	random *rand.Rand
	slots  []*slot
	shims  *proof.Shims
	orders *orders

	// now is when the event that is being handled arrived; wake is when to look
	// again if none does, and something asked for it (woken).
	now, wake time.Duration
	woken     bool
	posts     chan func()
	yields    chan struct{}
	group     sync.WaitGroup
	stop      <-chan struct{}
	stopping  bool
	// yielding: the hold that lasts is to end.
	yielding bool
	// leaving: the pod is being deleted, so no hold begins any more. asked is the
	// hold that the last answer about that was under, belated the one whose first
	// answer was that the pod is about to end.
	leaving        bool
	asked, belated string
	// leaps counts those of the wall clock that this process was told of.
	leaps int

	// bid is the hold that is being acquired.
	bid bid
	// owes: slots of the last hold are to be released before any is taken.
	owes bool
	// aside: the last hold was given up for others to have the slots, and this
	// is for how long after its release they alone compete; contendAt is when
	// that ends.
	aside, contendAt time.Duration
	// leaveBy bounds how long a stopping agent tries to release: then the
	// slots have expired anyway.
	leaveBy time.Duration

	outlook outlook
	probes  *probe.Monitor
	status  *status
	events  *events
	metrics *Metrics
}

// New makes an agent. It starts nothing.
func New(config Config) (*Agent, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	budget, err := api.NewBudget(config.LeaseDuration)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a := &Agent{
		config: config,
		self: lease.Self{
			Identity: api.Identity(config.PodName, config.PodUID),
			BootID:   config.BootID,
			Budget:   budget,
		},
		random:  rand.New(config.Random),
		shims:   proof.New(proof.Config{Containers: config.Containers, InitContainers: config.InitContainers, Granted: config.Granted}),
		posts:   make(chan func()),
		yields:  make(chan struct{}, 1),
		metrics: newMetrics(config.Clock),
	}
	for _, name := range config.Slots {
		a.slots = append(a.slots, &slot{name: name})
	}
	a.orders = newOrders(config, a.shims)
	a.status = newStatus(config, budget, rand.New(rand.NewPCG(a.random.Uint64(), 0)))
	a.status.answered = a.answered
	a.events = newEvents(config, budget.RequestTimeout)
	a.probes = newProbes(config)
	return a, nil
}

// Run stands by, holds and drains until stop is closed and everything that ran
// under this agent's grants is proven dead; it then releases, and returns nil.
// The end of ctx is a hard stop: nothing is released, shims drain by
// themselves at their deadline.
func (a *Agent) Run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.group.Wait()
	defer cancel()
	defer a.probes.Close()
	a.stop = stop
	a.now = a.config.Clock()
	a.group.Go(func() { a.status.run(ctx) })
	a.group.Go(func() { a.events.run(ctx) })
	for {
		h, err := a.standby(ctx)
		if h == nil || err != nil {
			a.events.flush(ctx)
			return err
		}
		if err := a.hold(ctx, h); err != nil {
			return err
		}
	}
}

// Yield makes the agent drain its child with the pod's whole grace, release,
// and contend again, after those that stand by already.
func (a *Agent) Yield() {
	select {
	case a.yields <- struct{}{}:
	default:
	}
}

// answered takes in whether the pod is being deleted, as far as that was asked
// under a hold.
//
// A kubelet ends its containers by itself. But a signal that comes before there is
// a process to hear it is lost, and then the container stays until the grace is
// over. So a pod that knows of its deletion begins no hold, and one that finds out
// just after it began one gives it back. What has lasted for longer goes on.
func (a *Agent) answered(ctx context.Context, hold string, deleted bool) {
	a.post(ctx, func() {
		a.leaving = a.leaving || deleted
		if hold == "" || hold == a.asked {
			return
		}
		a.asked = hold
		// With the gate "pod" the kubelet alone can stop anything, and restarts
		// nothing any more: to give back would leave it running.
		if deleted && !a.config.KubeletStops {
			a.belated = hold
		}
	})
}

// Metrics of the agent.
func (a *Agent) Metrics() *Metrics { return a.metrics }

// reported takes in what a shim says.
func (a *Agent) reported(r gate.Report) {
	last, known := a.shims.Last(r.Shim)
	if r.Silent && !last.Silent {
		a.events.silent(r.Container)
	}
	if r.Trouble.Serial != 0 && last.Trouble != r.Trouble {
		a.events.trouble(r.Trouble)
	}
	a.shims.Note(r)
	a.orders.note(last, r)
	if tellsOfLeap(last, known, r) {
		a.orders.leapt(r.Shim, a.leapt())
	}
}

// wakeAt asks for another look at that instant.
func (a *Agent) wakeAt(at time.Duration) {
	if !a.woken || at < a.wake {
		a.wake, a.woken = at, true
	}
}

// longest is the longest time without a look at the clock. Go's timers stop
// while the machine sleeps, so an instant may have passed unnoticed; a shim
// does not depend on that, but the next renewal does.
const longest = 10 * time.Second

// wait waits for one event, or for the instant that was asked for, and takes it
// in. Timers only wake; what time it is, the clock says.
func (a *Agent) wait(ctx context.Context) error {
	pause := longest
	a.metrics.looked()
	if a.woken {
		pause = min(max(a.wake-a.config.Clock(), 0), longest)
	}
	a.woken = false
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r, ok := <-a.config.Gate.Reports():
		if !ok {
			return ErrGateClosed
		}
		a.now = a.config.Clock()
		a.reported(r)
	case f := <-a.posts:
		a.now = a.config.Clock()
		f()
	case <-a.probes.News():
		a.now = a.config.Clock()
		a.noticed()
	case <-a.stop:
		a.now = a.config.Clock()
		a.stop, a.stopping = nil, true
		a.leaveBy = max(a.leaveBy, a.now+a.self.Budget.Duration)
	case <-a.config.Leaps:
		a.now = a.config.Clock()
		a.leapt()
	case <-a.yields:
		a.now, a.yielding = a.config.Clock(), true
	case <-timer.C:
		a.now = a.config.Clock()
	}
	return nil
}

// post hands f to the loop, or drops it when the agent ends.
func (a *Agent) post(ctx context.Context, f func()) {
	select {
	case a.posts <- f:
	case <-ctx.Done():
	}
}

const (
	// quick is the first pause after a miss: a pod starts moments before its
	// role and its Leases are there.
	quick = 100 * time.Millisecond
	// slowest bounds the pauses of a standby. A crowd of them then costs an
	// API server that comes back no more than as many holders would; for short
	// leases it is the period of a renewal.
	slowest = 10 * time.Second
	// lasts is the length from which on the end of a look counts as a first miss.
	// One read and one watch in that time are no more than a holder's renewals.
	// A read alone shows nothing: a server may answer reads and refuse watches.
	lasts = slowest
)

// backoff is the pause after another miss of the slot: half of it fixed, half
// random, so that those that failed together do not return together. Only a stored
// write, or a look that lasted, makes the pauses short again. The pod
// that the Lease names is there within the time that the others leave it: a
// request may time out, and the next has a quarter of a renewal's period left.
func (a *Agent) backoff(s *slot, err error) time.Duration {
	bound := min(slowest, a.self.Budget.Renew)
	if r, ok := s.view.Record(); ok && a.self.Mine(r) && s.held == nil {
		bound = min(a.self.Budget.Retry, a.self.Budget.Renew/4)
	}
	if a.now-s.began >= lasts {
		s.misses = 0
	}
	pause := min(quick<<min(s.misses, 10), bound)
	s.misses++
	if status, ok := errors.AsType[*kube.StatusError](err); ok {
		pause = max(pause, min(status.RetryAfter, bound))
	}
	return a.jitter(pause)
}

// jitter is between half of d and d, to the nanosecond.
func (a *Agent) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(a.random.Int64N(int64(d/2)+1))
}
