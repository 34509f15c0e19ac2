// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Holder has the facts on which the readiness of a holder depends.
type Holder struct {
	Hold string
	// Slots are the slots that the pod holds.
	Slots []string
	// Since is the instant at which the hold began.
	Since time.Duration
	// Running reports that the application runs. The field Serves reports that the application
	// also passes its readiness probes.
	Running, Serves bool
	// Served reports that the application has already served in this hold.
	Served bool
	// Waits reports that the application must pass a probe before the pod is Ready.
	Waits bool
	// Start describes, for people, what the application's start waits for; empty if nothing
	// delays the start.
	Start string
	// Paused describes, for people, the pause of a slot; empty without a pause.
	Paused string
	// Turn describes, for people, the turn of a revision that is not proven; empty without such
	// a turn.
	Turn string
	// The field Leaves reports that the pod is leaving its Services before its application stops.
	Leaves bool
	// Spared reports that the pod stays Ready although its application has not served yet in
	// this hold. Such a pod has a proven revision and a strict controller.
	Spared bool
}

// Holder decides the status of a holder. If the pod is Ready because its application serves,
// Holder stores that fact in the field "served". If the pod later becomes a standby,
// [Readiness.learn] therefore keeps the pod Ready for a while.
func (r *Readiness) Holder(now time.Duration, h Holder) Decision {
	r.calm.quiet = r.config.quiet(h.Leaves)
	if r.follows {
		r.calm.follows(h.Hold)
	}
	if h.Serves {
		r.calm.serves(now, h.Hold)
	}
	r.follows, r.shard = false, shardOf(h.Slots)
	shown := r.calmly(now, r.holder(now, h))
	shown.Shard = r.shard
	return shown
}

// holder decides the status of a holder, without the label of its shard.
func (r *Readiness) holder(now time.Duration, h Holder) Decision {
	soon := h.Since + r.config.Budget.Retry
	holds := "this pod holds " + strings.Join(h.Slots, ", ")
	if h.Paused != "" {
		holds += "; " + h.Paused
	}
	if h.Turn != "" {
		holds += ", for " + h.Turn
	}
	switch {
	case h.Leaves:
		return decision(false, ReadyLeaving, holds+"; its application is about to stop").withHold(h.Hold)
	case h.Serves && h.Turn != "":
		return decision(false, ReadyInTurn, holds+", and has to serve for longer").withHold(h.Hold)
	case h.Serves:
		r.served = true
		return decision(true, ReadyHolding, holds).withHold(h.Hold)
	case h.Spared:
		return decision(true, ReadyStarting, holds+"; its application has not served yet, and the controller would replace an unready pod").withHold(h.Hold)
	case h.Running && !h.Served:
		return decision(false, ReadyNotReady, holds+"; its application "+api.NotServedYet).withHold(h.Hold)
	case h.Running:
		return decision(false, ReadyNotReady, holds+"; its application does not pass its probes").withHold(h.Hold)
	case h.Start != "":
		return decision(false, ReadyStarting, holds+"; its application is to start: "+h.Start).withHold(h.Hold)
	case now < soon && !h.Waits:
		// A child starts within milliseconds. If the pod were not Ready for so short a time,
		// its Services would change back and forth.
		return keep(soon)
	default:
		return decision(false, ReadyStarting, holds+"; its application is about to start").withHold(h.Hold)
	}
}

// Starts decides the status of a pod that claims only a start lock. The argument "start"
// describes what the start waits for; empty if nothing delays the start.
func Starts(running, serves bool, start string) Decision {
	switch {
	case start != "":
		return decision(false, ReadyStarting, "the application is to start: "+start)
	case serves:
		return decision(true, ReadyStarted, "the application has started")
	case running:
		return decision(false, ReadyNotReady, "the application does not pass its probes")
	}
	return decision(false, ReadyStarting, "the application is about to start")
}

// Draining decides the status of a pod while its child drains. The argument "since" is the
// instant at which the drain began. The argument "spared" reports that the pod stays Ready
// during this drain. Only a Ready pod of a proven revision and a strict controller is spared,
// and only for a yield.
func (r *Readiness) Draining(now time.Duration, hold, reason string, since time.Duration, spared bool) Decision {
	if spared {
		r.served = true // so the method "learn" keeps the pod Ready for a while after the drain
		return keep(pace.Never)
	}
	if soon := since + r.config.Budget.Retry; now < soon && !r.config.Gate {
		// Most children end within Budget.Retry, and then the pod is a standby, which may be Ready.
		// If the pod were not Ready for so short a time, its Services would change back and forth.
		return keep(soon)
	}
	draining := decision(false, ReadyDraining, "the application is stopped: "+reason).withHold(hold)
	draining.Shard = r.shard
	return draining
}

// Done returns the status of a pod whose work is done. The argument "work" names that work.
func Done(work string) Decision { return decision(true, ReadyDone, work) }

// Failed returns the status of a pod that waits after a failure. The argument describes the
// failure.
func Failed(work string) Decision { return decision(false, ReadyFailed, work+", and the pod waits") }

// withHold returns the decision d for a pod that has the hold.
func (d Decision) withHold(hold string) Decision {
	d.Hold = hold
	return d
}

// Turn is the effect of a rollout on the readiness of a standby. The zero value has no effect.
type Turn struct {
	// NotReady reports that a rollout must not count the pod as Ready yet. Reason and Message
	// explain this to people. Ready reports that the pod stays Ready although no holder serves.
	// During the turn of a newer revision a strict controller would otherwise delete this pod.
	NotReady, Ready bool
	Reason, Message string
	// Beyond is a time in addition to [Handover]. The standby of a strict controller stays Ready
	// for the sum of both times while no holder serves.
	Beyond time.Duration
}

// shardOf returns the number of the shard among the slots of a holder; empty if the holder has
// no shard.
func shardOf(slots []string) string {
	if len(slots) != 1 {
		return ""
	}
	_, shard, ok := api.ReadShard(slots[0])
	if !ok {
		return ""
	}
	return strconv.Itoa(shard)
}

// closedOf explains why the stamp of a slot does not admit a pod with this number of shards and
// this run.
func closedOf(slot string, s api.Stamp, shards int, run string) string {
	switch {
	case s == (api.Stamp{}):
		return fmt.Sprintf("%s has no stamp of the number of shards yet", slot)
	case s.Run != run && s.Run != "":
		return fmt.Sprintf("%s is for the run of the Job %s, and this pod is of another run", slot, s.Run)
	case s.Closed && run != "":
		return fmt.Sprintf("%s is closed until no pod of another run, or of another number than %d, holds a shard", slot, s.Count)
	case s.Closed:
		return fmt.Sprintf("%s is closed until no pod holds a shard of another number than %d", slot, s.Count)
	}
	return fmt.Sprintf("%s is for %d shards, and this pod is for %d", slot, s.Count, shards)
}
