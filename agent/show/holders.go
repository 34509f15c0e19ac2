// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// holders has the facts about the pods that hold the slots.
type holders struct {
	// The field "known" reports that the pod has seen every slot.
	known bool
	// The field "serving" reports that one pod of this workload holds all slots and serves. The
	// field "address" is the address of that pod.
	serving bool
	address string
	// The field "foreign" reports that a pod of another workload holds one of the slots.
	foreign bool
	// stranger reports that foreign is true because a Lease names no workload.
	stranger bool
	// next is the identity of the successor of a holder that is leaving its Services.
	next string
	// mine reports that the Lease of a slot names this pod.
	mine bool
	// holder and slot are the pod and the Lease that the message of the pod condition names.
	holder, slot string
	// paused describes, for people, the pause of a slot; empty without a pause.
	paused string
	// closed explains, for people, why the stamp of a Lease does not admit the pod. If each stamp
	// admits the pod, the field is empty.
	closed string
	// until is the instant until which these facts stay true, unless a Lease changes.
	until time.Duration
}

// holders returns the facts about the pods that hold the slots.
func (r *Readiness) holders(now time.Duration, slots []Slot) holders {
	h := holders{known: true, serving: true, until: instant.Never}
	for _, s := range slots {
		if !s.Known {
			return holders{until: instant.Never}
		}
		if h.slot == "" || s.Record.Holder != "" && !s.Mine {
			h.holder, h.slot = holderName(s.Record), s.Name
		}
		h.mine = h.mine || s.Mine
		if h.closed == "" && r.config.Shards > 0 && !s.Record.Stamp.Admits(r.config.Shards, r.config.Run) {
			h.closed = closedOf(s.Name, s.Record.Stamp, r.config.Shards, r.config.Run)
		}
		if h.paused == "" {
			h.paused = PauseOf(s.Name, s.Record.Paused)
		}
		switch {
		case s.Record.Holder == "" || s.Mine:
			h.serving = false
		case s.Record.Notes.Workload != r.config.Workload || r.config.Workload == "":
			h.serving, h.foreign = false, true
			h.stranger = s.Record.Notes.Workload == ""
			h.holder, h.slot = holderName(s.Record), s.Name
			return h
		case s.Record.Notes.Serving.IsZero(), now >= s.ExpiresAt:
			// After the expiry of the Lease, the address may belong to another pod.
			h.serving = false
		default:
			h.until = min(h.until, s.ExpiresAt)
		}
		h.address, h.next = s.Record.Notes.Address, s.Record.Notes.Leaving
	}
	return h
}

// holderName returns the name of the holder's pod. If another program holds the Lease, by its
// own leader election, holderName returns that program's identity unchanged.
func holderName(r lease.Record) string {
	if r.Hold == "" {
		return r.Holder
	}
	return api.PodOf(r.Holder)
}

// reason returns the reason of a standby's condition: ReadyPaused for a paused slot without a
// holder, or ReadyStandingBy for any other slot.
func (h holders) reason() string {
	if h.holder == "" && h.paused != "" {
		return ReadyPaused
	}
	return ReadyStandingBy
}

func (h holders) message() string {
	if h.holder == "" {
		return h.and("nobody holds " + h.slot)
	}
	return h.and(h.holder + " holds " + h.slot)
}

// readyMessage returns the message of a Ready standby. The message does not name the holder. So
// after a short handover the message is the same, and the agent writes nothing.
func (h holders) readyMessage() string { return h.and("a holder of " + h.slot + " serves") }

// The method "and" appends the pause of a slot to the text.
func (h holders) and(text string) string {
	if h.paused == "" {
		return text
	}
	return text + "; " + h.paused
}

// message returns the message of a standby that is never Ready. If any one slot is enough for the
// pod, the message names no holder. So a change of a slot's holder causes no write.
func (r *Readiness) message(h holders) string {
	if r.config.Any && !h.foreign && h.paused == "" {
		return "this pod takes the first slot that becomes free"
	}
	return h.message()
}
