// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
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
// [Readiness.note] therefore keeps the pod Ready for a while.
func (r *Readiness) Holder(now time.Duration, h Holder) Look {
	r.calm.holds(now, h.Hold, h.Serves, r.follows, r.config.quiet(h.Leaves))
	r.follows, r.shard = false, shardOf(h.Slots)
	shown := r.calmly(now, r.holder(now, h))
	shown.Shard = r.shard
	return shown
}

// holder decides the status of a holder, without the label of its shard.
func (r *Readiness) holder(now time.Duration, h Holder) Look {
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
		return look(false, ReadyLeaving, holds+"; its application is about to stop").of(h.Hold)
	case h.Serves && h.Turn != "":
		return look(false, ReadyInTurn, holds+", and has to serve for longer").of(h.Hold)
	case h.Serves:
		r.served = true
		return look(true, ReadyHolding, holds).of(h.Hold)
	case h.Spared:
		return look(true, ReadyStarting, holds+"; its application has not served yet, and the controller would replace an unready pod").of(h.Hold)
	case h.Running:
		return look(false, ReadyNotReady, holds+"; its application does not pass its probes").of(h.Hold)
	case h.Start != "":
		return look(false, ReadyStarting, holds+"; its application is to start: "+h.Start).of(h.Hold)
	case now < soon && !h.Waits:
		// A child starts within milliseconds. If the pod were not Ready for so short a time,
		// its Services would change back and forth.
		return keep(soon)
	default:
		return look(false, ReadyStarting, holds+"; its application is about to start").of(h.Hold)
	}
}

// Starts decides the status of a pod that claims only a start lock. The argument "start"
// describes what the start waits for; empty if nothing delays the start.
func Starts(running, serves bool, start string) Look {
	switch {
	case start != "":
		return look(false, ReadyStarting, "the application is to start: "+start)
	case serves:
		return look(true, ReadyStarted, "the application has started")
	case running:
		return look(false, ReadyNotReady, "the application does not pass its probes")
	}
	return look(false, ReadyStarting, "the application is about to start")
}

// Draining decides the status of a pod while its child drains. The argument "since" is the
// instant at which the drain began. The argument "spared" reports that the pod stays Ready
// during this drain. Only a Ready pod of a proven revision and a strict controller is spared,
// and only for a yield.
func (r *Readiness) Draining(now time.Duration, hold, reason string, since time.Duration, spared bool) Look {
	if spared {
		r.served = true // so the method "note" keeps the pod Ready for a while after the drain
		return keep(instant.Never)
	}
	if soon := since + r.config.Budget.Retry; now < soon && !r.config.Gate {
		// Most children end within Budget.Retry, and then the pod is a standby, which may be Ready.
		// If the pod were not Ready for so short a time, its Services would change back and forth.
		return keep(soon)
	}
	draining := look(false, ReadyDraining, "the application is stopped: "+reason).of(hold)
	draining.Shard = r.shard
	return draining
}

// Done returns the status of a pod whose work is done. The argument "work" names that work.
func Done(work string) Look { return look(true, ReadyDone, work) }

// Failed returns the status of a pod that waits after a failure. The argument describes the
// failure.
func Failed(work string) Look { return look(false, ReadyFailed, work+", and the pod waits") }

// The method "of" returns the status l for a pod that has the hold.
func (l Look) of(hold string) Look {
	l.Hold = hold
	return l
}
