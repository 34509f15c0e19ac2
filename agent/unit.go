// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// unit is the agent's knowledge of its pod: the claim, the reports of shims and what they
// prove, and the pod's status. A unit itself waits for no event.
type unit struct {
	config Config
	self   lease.Self
	random *rand.Rand

	// claim is the main claim, and claims are all claims of the pod: also that of the start lock.
	claim  *elector.Elector
	claims []*elector.Elector
	shims  *gate.Proof
	orders *orders
	probes *probe.Monitor

	readiness *status.Readiness
	status    *status.Status
	events    *status.Events
	metrics   *status.Metrics

	rollout  *rollout
	deletion deletion
	linger   linger
	stored   stored
	// began is the instant at which this agent process began.
	began time.Duration
	// lapse estimates for how long the machine was paused. Only pods whose KubeletStops is true use
	// this estimate, because a shim freezes its child instead.
	lapse lapse
	waits *waits
	// ended is the last hold that ended without an order of the agent; empty if there is none.
	ended string
	// Until the instant grantsAt the pod takes no free slot, because the pod could not send a first
	// grant in its last hold.
	grantsAt time.Duration
	// stopping reports that the agent is about to end. The field "yielding" reports that
	// somebody has requested a yield of the present hold.
	stopping, yielding bool
}

func newUnit(c Config, b api.Budget, p posts) *unit {
	u := &unit{
		config:  c,
		self:    lease.Self{Identity: api.Identity(c.PodName, c.PodUID), BootID: c.BootID, Boots: c.Boots, Budget: b},
		random:  rand.New(c.Random),
		began:   c.Clock(),
		shims:   gate.NewProof(gate.ProofConfig{Containers: c.Containers, InitContainers: c.InitContainers, Granted: c.Granted, Unbounded: c.slotless()}),
		probes:  newProbes(c),
		rollout: newRollout(c),
	}
	if c.Ahead != nil {
		u.lapse.last = c.Ahead()
	}
	u.orders = newOrders(c, u.shims)
	settings := showConfig(c, b, rand.New(rand.NewPCG(u.random.Uint64(), 0)))
	toGate := settings.Stored
	settings.Stored = func(ctx context.Context, ready bool) {
		toGate(ctx, ready)
		p.post(ctx, func(time.Duration) { u.stored = stored{known: true, ready: ready} })
	}
	settings.Answered = func(ctx context.Context, hold string, deleted bool) {
		p.post(ctx, func(time.Duration) { u.deletion.learn(hold, deleted) })
	}
	u.status, u.events = status.NewStatus(settings), status.NewEvents(settings)
	u.waits = &waits{config: c, shims: u.shims, orders: u.orders, events: u.events, course: c.Course}
	seen := readinessConfig(c, b)
	seen.Jitter = u.jitter
	u.readiness = status.NewReadiness(seen)
	u.metrics = status.NewMetrics(c.Clock, instant.LongestSleep, c.Workload, b)
	return u
}

// showConfig returns the settings of package status.
func showConfig(c Config, b api.Budget, random *rand.Rand) status.Config {
	return status.Config{
		PodName: c.PodName, PodUID: c.PodUID, Shards: c.Shards, API: c.API, Timeout: b.RequestTimeout, StartsWithin: startsWithin,
		Backoff: func(misses int) time.Duration { return jitter(random, pace.Backoff(misses)) },
		Delay:   func() time.Duration { return jitter(random, status.WordsDelay) },
		Stored: func(_ context.Context, ready bool) {
			if g, ok := c.Gate.(ReadinessGate); ok {
				g.Shown(ready)
			}
		},
		Idle: c.Idle, Wall: c.Wall, Log: c.Log,
	}
}

func readinessConfig(c Config, b api.Budget) status.ReadinessConfig {
	r := status.ReadinessConfig{
		Slots: c.Slots, Any: c.Any, Identity: api.Identity(c.PodName, c.PodUID), Workload: c.Workload, Mode: c.Readiness,
		Shards: c.Shards, Run: c.Run, Budget: b, Ports: c.Ports.Declared(), Gate: c.gatesReadiness(),
	}
	if c.Forwarder != nil {
		r.Forwarder = c.Forwarder
	}
	return r
}

// reported stores a shim's report in the unit, and adds an Event for each new problem in the
// report. A false shim of a container without a gate causes no such Event. If the report contains a
// new leap, the method also remembers the leap.
func (u *unit) reported(now time.Duration, r gate.Report) {
	last, known := u.shims.Last(r.Shim)
	if r.Silent && !last.Silent && u.config.gates(r.Container) {
		u.events.Silent(now, r.Container)
	}
	if r.Trouble.Serial != 0 && last.Trouble != r.Trouble && u.config.gates(r.Container) {
		u.events.Trouble(now, r.Trouble)
	}
	u.shims.Learn(r)
	u.orders.learn(last, r)
	if tellsOfLeap(last, known, r) {
		u.orders.leapt(r.Shim, u.leapt(now))
	}
}

// tellsOfLeap reports whether the report contains a leap that no earlier report on the same
// connection contained.
func tellsOfLeap(last gate.Report, known bool, r gate.Report) bool {
	return r.Leap != 0 && !r.Dead && (!known || last.Leap != r.Leap || r.Connected && !last.Connected)
}

// leapt remembers a leap of the wall clock, and returns the number of leaps so far.
//
// A leap may mean that the machine was paused. If so, this machine's clock stood still,
// while the standbys saw the Lease expire. A read that still shows this pod as the holder
// proves little, because a standby may be about to take the expired Lease. So the agent renews
// at once. The hold is safe again only after a renewal that the agent sent after it had noticed
// the leap. Every standby that sees this renewal waits anew.
func (u *unit) leapt(now time.Duration) int {
	u.config.Log.Info("the clock was set: renewing at once")
	// If the machine was paused, the API server may have closed the open connections meanwhile.
	u.config.Reconnect()
	if u.config.Ahead != nil {
		u.lapse.leapt(now, u.config.Ahead(), u.claim.State().Renewed())
	}
	leaps := 0
	for _, c := range u.claims {
		leaps = c.Leapt(now)
	}
	return leaps
}

// stop remembers that the agent is about to end.
func (u *unit) stop(now time.Duration) {
	u.stopping = true
	for _, c := range u.claims {
		c.Stop(now)
	}
}

// mayHold reports whether the pod may begin a hold. The result is false if the agent is stopping, or
// if the pod is being deleted.
func (u *unit) mayHold() bool { return !u.stopping && !u.deletion.known }

// startsWhole reports whether each gated container waits for a grant, so that a grant would start the
// pod's whole application. In a pod with gated init containers one waiting container is enough,
// because the others start later. If a child still lives, or the pod may not begin a hold, the
// result is false.
func (u *unit) startsWhole() bool {
	waiting := u.shims.Waiting()
	containers := map[string]bool{}
	for _, r := range waiting {
		containers[r.Container] = true
	}
	if !u.mayHold() || u.shims.Alive() {
		return false
	}
	for _, container := range u.config.Containers {
		if !containers[container] && len(u.config.InitContainers) == 0 {
			return false
		}
	}
	return len(waiting) > 0
}

// grantable returns the shims that may have a grant of the hold now. A shim that has been
// ordered to drain the hold gets no grant of that hold.
func (u *unit) grantable(hold string) []gate.Report {
	return slices.DeleteFunc(u.shims.Grantable(hold), func(r gate.Report) bool {
		return u.orders.to(r.Shim).drained == hold
	})
}

// shimWaits reports whether a shim waits for a hold. In a pod without slots, all holds have the same
// id, [elector.Slotless]. So a shim that was ordered to drain one hold gets no grant of a later
// hold, and does not count.
func (u *unit) shimWaits() bool {
	if u.config.slotless() {
		return len(u.grantable(elector.Slotless)) > 0
	}
	return len(u.shims.Waiting()) > 0
}

// facts returns the inputs of the claim's next decision.
func (u *unit) facts() elector.Facts {
	return elector.Facts{
		Wall:     u.config.Wall(),
		Compete:  u.mayHold() && u.shimWaits(),
		Lingers:  u.linger.on,
		Alive:    u.shims.Alive(),
		Children: u.resumable(),
		Profile:  lease.Profile{Address: u.config.PodIP, Workload: u.config.Workload, Job: u.config.Job, Revision: u.config.Revision},
	}
}

// outcome returns what the pod knows about the end of its hold. The failure of a shard counts nowhere,
// because the Job itself counts its failures and delays its next pod.
func (u *unit) outcome(hold string) elector.Outcome {
	completed, failed := u.shims.Outcome(hold)
	o := elector.Outcome{Proven: u.shims.Proven(hold)}
	if completed {
		o.Done = u.config.work()
	}
	if failed {
		o.Failed = u.config.OnceKey
	}
	return o
}

// owesRecord reports whether a Lease still names an ended hold of this pod, under which the work has
// succeeded or failed. The release of that hold must record the success, or count the failure. Until
// that release is stored, the pod must not acquire the slot again.
func (u *unit) owesRecord(views []elector.View) bool {
	return slices.ContainsFunc(views, func(v elector.View) bool {
		o := u.outcome(v.Record.Hold)
		return v.Mine && o.Proven && (o.Done != "" || o.Failed != "")
	})
}

// resumable returns the children whose hold this agent may resume.
func (u *unit) resumable() []elector.Child {
	var children []elector.Child
	for _, r := range u.shims.Reports() {
		if r.Connected && r.HasChild() && u.orders.to(r.Shim).drained != r.Hold && !u.shims.Doubted(r.Hold) {
			children = append(children, childOf(r))
		}
	}
	return children
}

// childOf converts a shim's report about its child for package elector.
func childOf(r gate.Report) elector.Child {
	c := elector.Child{Hold: r.Hold}
	for _, t := range r.Slots {
		c.Tokens = append(c.Tokens, elector.Token{Slot: t.Slot, Token: t.Token})
	}
	return c
}

// jitter returns a random duration between half of d and d.
func (u *unit) jitter(d time.Duration) time.Duration { return jitter(u.random, d) }

func jitter(random *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d/2)+1))
}

// stored is the pod's readiness, as the API server has stored it. The field "known" is false before
// the first answer.
type stored struct{ known, ready bool }

// linger is the state of a stopping standby that continues to forward. Nodes send connections
// to a deleted pod until all of them know of its deletion.
type linger struct {
	// begun reports that the agent has decided whether the standby lingers. The field "on"
	// reports that the standby lingers now.
	begun, on bool
	// until is the instant at which the agent cuts the remaining connections.
	until time.Duration
	// least is the instant before which a free slot does not end the linger.
	least time.Duration
}
