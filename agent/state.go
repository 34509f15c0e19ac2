// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/promise"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// state is everything that the agent knows of its pod, and what it sends requests by. Only the goroutine
// of [Agent.Run] touches it; the other goroutines post what they learn. A state of the agent (standby,
// hold, drain) is the function that it is in.
type state struct {
	config Config
	self   lease.Self
	random *rand.Rand
	// now is the instant of the last event.
	now time.Duration

	// claim is the main claim, and claims are all claims of the pod: also that of the start lock.
	claim  *elector.Elector
	claims []*elector.Elector
	starts *starts
	shims  *gate.Proof
	orders *orders
	probes *probe.Monitor
	waits  *waits

	readiness *status.Readiness
	status    *status.Status
	events    *status.Events
	metrics   *status.Metrics

	rollout *rollout
	speaker *speaker
	// key is that of this agent process.
	key        promise.Key
	supporting *supporting
	deletion   deletion
	linger     linger
	stored     stored
	// unrenewedSince is the instant since which all renewals have failed; zero if the last one has not.
	unrenewedSince time.Duration
	// began is the instant at which this agent process began.
	began time.Duration
	// lapse estimates for how long the machine was paused. Only pods whose KubeletStops is true use
	// this estimate, because a shim freezes its child instead.
	lapse lapse
	// ended is the last hold that ended without an order of the agent; empty if there is none.
	ended string
	// checked is the last hold that needs no further check for the pod's deletion: the check has
	// begun, or the hold needs none.
	checked string
	// Until the instant grantsAt the pod takes no free slot, because the pod could not send a first
	// grant in its last hold.
	grantsAt time.Duration
	// stopping reports that the agent is about to end. The field "yielding" reports that
	// somebody has requested a yield of the present hold.
	stopping, yielding bool

	// group counts the goroutines that send requests, and posts is their way back to the loop.
	group  sync.WaitGroup
	posts  posts
	yields chan struct{}
	stops  <-chan struct{}
	// noAnswer delivers the address of a pod that did not answer a forwarded connection.
	noAnswer <-chan string
	// disrupted is closed once the pod's condition DisruptionTarget is stored or refused; nil if the
	// agent has not ended the pod.
	disrupted chan struct{}
}

func newState(c Config, b api.Budget) *state {
	s := &state{
		config: c,
		self:   lease.Self{Identity: api.Identity(c.PodName, c.PodUID), BootID: c.BootID, Boots: c.Boots, Budget: b},
		random: rand.New(c.Random),
		began:  c.Clock(),
		probes: newProbes(c), rollout: newRollout(c),
		posts: make(posts), yields: make(chan struct{}, 1),
	}
	if c.Ahead != nil {
		s.lapse.last = c.Ahead()
	}
	s.key, s.self.Key = newKey(c, b, s.rollout.speaks)
	s.claim = s.newClaim(elector.Config{
		Claim:  elector.Claim{Need: c.Need, First: c.First, Self: s.self, OwnKernel: c.OwnKernel, Random: s.random},
		Prompt: c.Forwarder != nil, Sends: s.sends, Answered: s.answered,
	})
	s.shims = gate.NewProof(gate.ProofConfig{
		Containers: c.Containers, InitContainers: c.InitContainers, Granted: c.Granted, Unbounded: c.slotless(), Began: s.claim.Began,
	})
	s.orders = newOrders(c, s.shims)
	s.makeOutputs(b)
	s.waits = &waits{config: c, shims: s.shims, orders: s.orders, events: s.events, course: c.Course}
	s.starts = newStarts(s)
	s.speaker, s.supporting = newSpeaker(s), &supporting{state: s}
	if c.Forwarder != nil {
		s.noAnswer = c.Forwarder.Unanswered()
	}
	return s
}

// makeOutputs makes what the agent tells people by: the pod's status and readiness, Events and metrics.
func (s *state) makeOutputs(b api.Budget) {
	c := s.config
	settings := showConfig(c, b, rand.New(rand.NewPCG(s.random.Uint64(), 0)))
	toGate := settings.Stored
	settings.Stored = func(ctx context.Context, ready bool) {
		toGate(ctx, ready)
		s.posts.post(ctx, func(now time.Duration) {
			if !s.stored.known || s.stored.ready != ready {
				s.stored = stored{known: true, ready: ready, since: now}
			}
		})
	}
	settings.Answered = func(ctx context.Context, hold string, deleted bool) {
		s.posts.post(ctx, func(time.Duration) { s.deletion.learn(hold, deleted) })
	}
	s.status, s.events = status.NewStatus(settings), status.NewEvents(settings)
	seen := readinessConfig(c, b)
	seen.Jitter = s.jitter
	s.readiness = status.NewReadiness(seen)
	s.metrics = status.NewMetrics(c.Clock, pace.LongestSleep, c.Workload, b)
}

// showConfig returns the settings of package status.
func showConfig(c Config, b api.Budget, random *rand.Rand) status.Config {
	return status.Config{
		PodName: c.PodName, PodUID: c.PodUID, Shards: c.Shards, API: c.API, Timeout: b.RequestTimeout,
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
		Need: c.Need, Identity: api.Identity(c.PodName, c.PodUID), Workload: c.Workload, Mode: c.Readiness,
		Budget: b, Ports: c.Ports.Declared(), Gate: c.gatesReadiness(),
	}
	if c.Forwarder != nil {
		r.Forwarder = c.Forwarder
	}
	return r
}

// reported stores a shim's report, and adds an Event for each new problem in the
// report. A false shim of a container without a gate causes no such Event. If the report contains a
// new leap, the method also remembers the leap.
func (s *state) reported(now time.Duration, r gate.Report) {
	last, known := s.shims.Last(r.Shim)
	if r.Silent && !last.Silent && s.config.gates(r.Container) {
		s.events.Silent(now, r.Container)
	}
	if r.Trouble.Serial != 0 && last.Trouble != r.Trouble && s.config.gates(r.Container) {
		s.events.Trouble(now, r.Trouble)
	}
	s.shims.Learn(r)
	s.orders.learn(last, r)
	if tellsOfLeap(last, known, r) {
		s.orders.leapt(r.Shim, s.leapt(now))
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
func (s *state) leapt(now time.Duration) int {
	s.config.Log.Info("the clock was set: renewing at once")
	// If the machine was paused, the API server may have closed the open connections meanwhile.
	s.config.Reconnect()
	if s.config.Ahead != nil {
		s.lapse.leapt(now, s.config.Ahead(), s.claim.State().Renewed())
	}
	leaps := 0
	for _, c := range s.claims {
		leaps = c.Leapt(now)
	}
	return leaps
}

func (s *state) stop(now time.Duration) {
	s.stopping = true
	for _, c := range s.claims {
		c.Stop(now)
	}
}

// mayHold reports whether the pod may begin a hold. The result is false if the agent is stopping, or
// if the pod is being deleted.
func (s *state) mayHold() bool { return !s.stopping && !s.deletion.known }

// startsWhole reports whether each gated container waits for a grant, so that a grant would start the
// pod's whole application. In a pod with gated init containers one waiting container is enough,
// because the others start later. If a child still lives, or the pod may not begin a hold, the
// result is false.
func (s *state) startsWhole() bool {
	waiting := s.shims.Waiting()
	containers := map[string]bool{}
	for _, r := range waiting {
		containers[r.Container] = true
	}
	if !s.mayHold() || s.shims.Alive() {
		return false
	}
	for _, container := range s.config.Containers {
		if !containers[container] && len(s.config.InitContainers) == 0 {
			return false
		}
	}
	return len(waiting) > 0
}

// grantableOf returns the shims that may have a grant of the hold now. A shim that has been
// ordered to drain the hold gets no grant of that hold.
func (s *state) grantableOf(hold string) []gate.Report {
	return slices.DeleteFunc(s.shims.Grantable(hold), func(r gate.Report) bool {
		return s.orders.to(r.Shim).drained == hold
	})
}

// shimWaits reports whether a shim waits for a hold. In a pod without slots, all holds have the same
// id, [elector.Slotless]. So a shim that was ordered to drain one hold gets no grant of a later
// hold, and does not count.
func (s *state) shimWaits() bool {
	if s.config.slotless() {
		return len(s.grantableOf(elector.Slotless)) > 0
	}
	return len(s.shims.Waiting()) > 0
}

// baseFacts returns those inputs of the claim's next decision that a standby and a holder have in common.
func (s *state) baseFacts() elector.Facts {
	return elector.Facts{
		Wall:     s.config.Wall(),
		Compete:  s.mayHold() && s.shimWaits(),
		Lingers:  s.linger.on,
		Alive:    s.shims.Alive(),
		Children: s.resumable(),
		Profile:  lease.Profile{Address: s.config.PodIP, Workload: s.config.Workload, Job: s.config.Job, Revision: s.config.Revision},
	}
}

// outcome returns what the pod knows about the end of its hold. The failure of a shard counts nowhere,
// because the Job itself counts its failures and delays its next pod.
func (s *state) outcome(hold string) elector.Outcome {
	completed, failed := s.shims.Outcome(hold)
	o := elector.Outcome{Proven: s.shims.Proven(hold)}
	if completed {
		o.Done = s.config.work()
	}
	if failed {
		o.Failed = s.config.OnceKey
	}
	return o
}

// owesRecord reports whether a Lease still names an ended hold of this pod, under which the work has
// succeeded or failed. The release of that hold must record the success, or count the failure. Until
// that release is stored, the pod must not acquire the slot again.
func (s *state) owesRecord(views []elector.View) bool {
	return slices.ContainsFunc(views, func(v elector.View) bool {
		o := s.outcome(v.Record.Hold)
		return v.Mine && o.Proven && (o.Done != "" || o.Failed != "")
	})
}

// resumable returns the children whose hold this agent may resume.
func (s *state) resumable() []elector.Child {
	var children []elector.Child
	for _, r := range s.shims.Reports() {
		if r.Connected && r.HasChild() && s.orders.to(r.Shim).drained != r.Hold && !s.shims.Doubted(r.Hold) {
			children = append(children, childOf(r))
		}
	}
	return children
}

func childOf(r gate.Report) elector.Child {
	return elector.Child{Hold: r.Hold, Tokens: r.Slots.List()}
}

// jitter returns a random duration between half of d and d.
func (s *state) jitter(d time.Duration) time.Duration { return jitter(s.random, d) }

func jitter(random *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d/2)+1))
}

// stored is the pod's readiness, as the API server has stored it, and the instant since which the
// agent knows that. The field "known" is false before the first answer.
type stored struct {
	known, ready bool
	since        time.Duration
}

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
