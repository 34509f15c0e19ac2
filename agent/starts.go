// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// slowStart is the time after which an Event reports a start that has not ended. No timeout ends
// a start, because the waiting pods would then start beside the slow application.
const slowStart = 10 * time.Minute

// starts keeps the pod's start lock, which is a separate claim. The first grant of each child
// waits until the pod holds the start lock. The agent releases the start lock once each child that
// the agent has started is ready or dead. If the start lock is lost earlier, these children go on.
//
// A nil *starts belongs to a pod without a start lock.
type starts struct {
	state *state
	lock  *elector.Elector
	// starting has the shims whose child is starting. The value is the hold of the start lock
	// under which that child starts.
	starting map[gate.ShimID]string
	// hold is the present hold of the start lock; empty without such a hold. The field "since"
	// is the instant at which that hold began.
	hold  string
	since time.Duration
	// told reports that an Event has reported the slow start.
	told bool
	// fresh reports that the Lease names no hold that an earlier agent process of the pod
	// began.
	fresh bool
	// watched is the instant since which a standby that is to ask for its turn watches the start
	// lock; zero without such a watch.
	watched time.Duration
}

// newStarts returns the start lock of the pod; nil for a pod without one.
func newStarts(of *state) *starts {
	c := of.config
	if len(c.StartSlots) == 0 {
		return nil
	}
	s := &starts{state: of, starting: map[gate.ShimID]string{}}
	s.lock = s.state.newClaim(elector.Config{
		Claim: elector.Claim{Need: api.Need{Slots: c.StartSlots}, Self: s.state.self, OwnKernel: c.OwnKernel, Random: s.state.random}, Answered: s.lockAnswered,
	})
	return s
}

// lockAnswered counts a write in the metrics, and reports a failure of any request in the log.
func (s *starts) lockAnswered(a elector.Action, err, refusal error) {
	count(s.state.metrics, a, err)
	if refusal != nil {
		s.state.config.Log.Debug("request for the start lock failed", "lease", a.Slot, "err", refusal)
	}
}

// startFacts are the inputs of a decision about the start lock.
type startFacts struct {
	// holds reports that the pod holds the slots of its main claim. Without these slots the agent
	// does not renew the start lock. Otherwise a pod with the start lock and a pod with the slots
	// could wait for each other for ever.
	holds bool
	// waits reports that a shim waits for a first grant, and that only the start lock is
	// missing.
	waits bool
	// serves reports that all children of the pod pass their probes. The method "act" also requires
	// that the postStart hook of each child has ended.
	serves bool
	// asks reports that the pod is a standby, and that only the start lock can keep the pod from
	// asking for its turn. The agent then watches the start lock. Any other standby sends no request
	// about the start lock.
	asks bool
}

// act lets the claim of the start lock decide, and sends that claim's requests. The result is the
// instant of the next decision.
func (s *starts) act(ctx context.Context, now time.Duration, f startFacts) time.Duration {
	if s == nil {
		return pace.Never
	}
	f.serves = f.serves && !slices.ContainsFunc(s.state.shims.Reports(), func(r gate.Report) bool { return r.HasChild() && r.Starting })
	s.adopt(s.lock.State())
	s.forgetStarted(f.serves)
	s.fresh = s.fresh || s.hold != "" || s.sawOther()
	switch {
	case !f.asks:
		s.watched = 0
	case s.watched == 0:
		s.watched = now
	}
	for {
		state, wake := s.lock.Step(ctx, now, s.lockFacts(f), func(hold string) elector.Outcome {
			return elector.Outcome{Proven: s.proven(now, hold, f.serves)}
		})
		if state.Stage != elector.Held {
			return wake
		}
		s.begin(now, state)
		part, over := s.ends(now, state, f)
		if !over {
			return min(wake, state.Deadline, s.tellSlow(now))
		}
		s.state.config.Log.Info("start lock ends", "lease", state.Tokens[0].Slot, "hold", s.hold, "released", part.GiveBack)
		s.hold = ""
		s.lock.LetGo(now, part)
	}
}

// forgetStarted forgets each child whose start is over: the child is ready, or proven dead.
func (s *starts) forgetStarted(serves bool) {
	maps.DeleteFunc(s.starting, func(id gate.ShimID, _ string) bool {
		r, known := s.state.shims.Last(id)
		switch {
		case !known || r.Phase == gate.Ended:
			return true
		case r.Phase == gate.Waiting:
			// The shim waits for one of three reasons: the grant is still under way, the shim
			// refused the grant, or the child is already dead. Only in the last case the start
			// is over, and the shim has reported that the grant's hold is over. That report may
			// have come over a later connection than the grant's.
			return !s.state.shims.MayHaveChild(id)
		}
		return serves && r.Phase == gate.Running && !r.Starting
	})
}

// lockFacts returns the inputs of the next decision about the start lock.
func (s *starts) lockFacts(f startFacts) elector.Facts {
	needed := f.waits || len(s.starting) > 0
	facts := elector.Facts{
		Wall:    s.state.config.Wall(),
		Compete: f.waits && s.hold == "" && s.state.mayHold(),
		Profile: lease.Profile{Address: s.state.config.PodIP, Workload: s.state.config.Workload},
		Settled: s.hold == "" && !needed && !f.asks && !s.inherits(),
		Renew:   s.hold != "" && needed && f.holds, Guard: true,
	}
	if s.inherits() && !f.serves {
		for _, v := range s.lock.Views() {
			if v.Mine && v.Known {
				facts.Children = append(facts.Children, elector.Child{
					Hold: v.Record.Hold, Tokens: []api.Token{{Slot: v.Slot, Token: cmp.Or(v.Record.Token, v.Record.Version)}},
				})
			}
		}
	}
	return facts
}

// inherits reports whether an earlier agent process may have held the start lock for a child.
// If that child is still starting, the new process resumes the hold; if not, the process
// releases the lock.
func (s *starts) inherits() bool { return !s.fresh && s.hasChild() }

// sawOther returns true if the agent has seen every Lease of the start lock, and none of these
// Leases names this pod.
func (s *starts) sawOther() bool {
	return !slices.ContainsFunc(s.lock.Views(), func(v elector.View) bool { return !v.Known || v.Mine })
}

func (s *starts) hasChild() bool {
	return slices.ContainsFunc(s.state.shims.Reports(), gate.Report.HasChild)
}

// proven reports whether no child can be starting under the hold. Until every shim has reported, the
// agent does not know all children of a resumed hold.
func (s *starts) proven(now time.Duration, hold string, serves bool) bool {
	if s.lock.Own(hold) != nil {
		starting := slices.Contains(slices.Collect(maps.Values(s.starting)), hold)
		return !starting && (s.lock.Began(hold) || s.heard(now, hold))
	}
	return s.heard(now, hold) && (serves || !s.hasChild())
}

// heard reports whether a shim of each container has reported to this agent process. No grant names
// a hold of the start lock, so no report names such a hold, either. So package gate counts the
// hold as proven once all these reports have arrived. Once the agent is older than a lease
// duration, the result is always true, because the kubelet may never start a container.
func (s *starts) heard(now time.Duration, hold string) bool {
	return s.state.shims.Proven(hold) || now >= s.state.began+s.state.self.Budget.Duration
}

// begin remembers that a hold has begun. Under a resumed hold, each child of the pod counts as
// starting.
func (s *starts) begin(now time.Duration, state elector.State) {
	if s.hold == state.Hold {
		return
	}
	s.hold, s.since, s.told = state.Hold, now, false
	s.adopt(state)
	s.state.config.Log.Info("start lock acquired", "lease", state.Tokens[0].Slot, "hold", s.hold, "resumed", state.Resumed)
}

// adopt counts each child of the pod as starting under the present hold, if that hold is a resumed
// one.
func (s *starts) adopt(state elector.State) {
	for _, r := range s.state.shims.Reports() {
		if state.Stage == elector.Held && state.Resumed && r.HasChild() {
			s.starting[r.Shim] = state.Hold
		}
	}
}

// ends reports whether the hold of the start lock ends now. The result named "part" tells
// in which way the claim then gives up its slot.
func (s *starts) ends(now time.Duration, state elector.State, f startFacts) (part elector.Parting, over bool) {
	switch {
	case state.Lost != nil, now >= state.Deadline:
		return elector.Parting{}, true
	case state.Resumed && !s.heard(now, s.hold):
	case len(s.starting) == 0 && (!f.waits || !s.state.mayHold()):
		return elector.Parting{GiveBack: true}, true
	}
	return elector.Parting{}, false
}

// tellSlow adds an Event if a start takes too long. The result is the instant of the next
// decision.
func (s *starts) tellSlow(now time.Duration) time.Duration {
	at := s.since + slowStart
	switch {
	case s.told || len(s.starting) == 0:
		return pace.Never
	case now < at:
		return at
	}
	s.told = true
	s.state.events.StartsSlowly(s.state.config.StartSlots[0], slowStart)
	return pace.Never
}

// startBy returns the instant from which no shim may start a child; zero for a pod without a
// start lock. If the pod does not hold its start lock, the instant is long past.
func (s *starts) startBy() time.Duration {
	switch {
	case s == nil:
		return 0
	case !s.open():
		return 1
	}
	return s.lock.State().DrainAt
}

// open reports whether the start lock permits a first grant now.
func (s *starts) open() bool {
	if s == nil {
		return true
	}
	state := s.lock.State()
	return s.hold != "" && state.Stage == elector.Held && state.Lost == nil && state.Renewed()
}

// begins remembers that a first grant is sent to the shim.
func (s *starts) begins(id gate.ShimID) {
	if s != nil {
		s.starting[id] = s.hold
	}
}

// done reports whether no start lock is left to release.
func (s *starts) done() bool { return s == nil || s.lock.State().Stage == elector.Done }

// obstacle describes, for people, what keeps the pod from its start lock; empty without an
// obstacle.
func (s *starts) obstacle(now time.Duration) string {
	if s == nil || s.open() {
		return ""
	}
	for _, v := range s.lock.Views() {
		holder := api.PodOf(v.Record.Holder)
		switch {
		case v.Known && v.Record.Paused != "":
			return v.Slot + " is paused"
		case v.Known && !v.Mine && holder != "" && now < v.ExpiresAt:
			return v.Slot + " is held by " + cmp.Or(holder, v.Record.Holder) + ", whose application starts"
		}
	}
	return "waiting for " + s.state.config.StartSlots[0]
}

// hinders describes, for people, why the pod could not start soon if the pod held its slot; empty
// without such an obstacle. While the pod does not know the start lock, the result is not empty. The
// argument "holder" is the present holder of the slot. A yield also frees the start lock of that
// holder, so that pod is no obstacle. The time of a start comes from the wall clocks of two
// machines. A wrong clock only delays the turn, or permits the turn too early.
func (s *starts) hinders(now time.Duration, holder string) string {
	if s == nil {
		return ""
	}
	for _, v := range s.lock.Views() {
		r := v.Record
		other := r.Holder != "" && r.Holder != holder && !v.Mine && now < v.ExpiresAt
		slow := !r.AcquireTime.IsZero() && s.state.config.Wall().Sub(r.AcquireTime) >= slowStart
		switch {
		case !v.Known, v.FreeAt == pace.Never && (s.watched == 0 || v.Heard < s.watched):
			// The pod neither sees the Lease, nor has read the Lease since this watch began.
			return v.Slot + " is not known"
		case r.Paused != "":
			return v.Slot + " is paused"
		case other && slow:
			return v.Slot + " is held by " + cmp.Or(api.PodOf(r.Holder), r.Holder) + ", whose application starts slowly"
		}
	}
	return ""
}
