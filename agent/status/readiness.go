// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Readiness decides how a pod's status looks to Services and rollouts. The caller writes the
// status, and checks the holder's pod: Readiness itself sends no request.
type Readiness struct {
	config ReadinessConfig
	// The field "served" reports that, at the last decision, the holder of this workload served or was
	// in its turn.
	served bool
	// until is the instant until which a standby stays Ready after the holder has stopped
	// serving.
	until time.Duration
	// began is the instant of the first call of [Readiness.Standby]; zero before that call.
	began time.Duration
	// The field "open" reports that the forwarder listens on the ports.
	open bool
	// The field "follows" reports that the holder is leaving its Services, and has named this pod
	// as its successor.
	follows bool
	calm    calm
	// The field "lingers" reports that the pod is ending, and opens no further port.
	lingers bool
	// shard is the number of the last shard that the pod held; empty for none.
	shard string
	// target is the pod to which the ports are forwarded.
	target target
}

// NewReadiness returns the readiness of a pod that has seen no Lease yet.
func NewReadiness(c ReadinessConfig) *Readiness {
	if c.Jitter == nil {
		c.Jitter = func(pause time.Duration) time.Duration { return pause }
	}
	return &Readiness{config: c, target: target{pace: pace.Pace{Every: checkPause, Burst: checkBurst}}}
}

// Decision is the decision about the pod's status from now on.
type Decision struct {
	Appearance
	// Keep reports that the pod's status stays as the agent last wrote it. The Appearance is
	// then unused.
	Keep bool
	// Check is the address of the holder's pod if the caller must now check whether that pod
	// answers; empty for no check.
	Check string
	// Wake is the instant of the next decision; [pace.Never] for none.
	Wake time.Duration
}

// keep returns the decision that the status stays as it is until the instant.
func keep(until time.Duration) Decision { return Decision{Keep: true, Wake: until} }

func decision(ready bool, reason, message string) Decision {
	return Decision{Appearance: Appearance{Ready: ready, Reason: reason, Message: message}, Wake: pace.Never}
}

// Handover returns how long a standby stays Ready while no holder serves. A vanished holder
// blocks the slot for the lease duration. Then the next application has the time
// b.Renew to start. A longer start is an outage, which Services should see, and so is the longer wait with
// [api.Budget.Failsafe]. A strict controller would delete a standby that is not Ready, so [Turn.Beyond]
// prolongs the time under such a controller.
func Handover(b api.Budget) time.Duration { return b.LeaseDuration() + b.Renew }

// holders has the facts about the pods that hold the slots.
type holders struct {
	// The field "known" reports that the pod has seen every slot.
	known bool
	// The field "serving" reports that a pod of this workload holds a slot, and that every such pod
	// serves. The field "address" is the address of that pod. The other slots may be free, because pods
	// of an earlier revision may claim fewer slots.
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
func (r *Readiness) holders(now time.Duration, slots []elector.View) holders {
	held := slices.ContainsFunc(slots, func(s elector.View) bool { return s.Record.Holder != "" })
	h := holders{known: true, serving: held, until: pace.Never}
	for _, s := range slots {
		if !s.Known {
			return holders{until: pace.Never}
		}
		if h.slot == "" || s.Record.Holder != "" && !s.Mine {
			h.holder, h.slot = holderName(*s.Record), s.Slot
		}
		h.mine = h.mine || s.Mine
		if h.closed == "" && r.config.Shards > 0 && !s.Record.Stamp.Admits(r.config.Shards, r.config.Run) {
			h.closed = closedOf(s.Slot, s.Record.Stamp, r.config.Shards, r.config.Run)
		}
		if h.paused == "" {
			h.paused = PauseOf(s.Slot, s.Record.Paused)
		}
		switch {
		case s.Record.Holder == "" && held:
			continue
		case s.Record.Holder == "" || s.Mine:
			h.serving = false
		case s.Record.Profile.Workload != r.config.Workload || r.config.Workload == "":
			h.serving, h.foreign = false, true
			h.stranger = s.Record.Profile.Workload == ""
			h.holder, h.slot = holderName(*s.Record), s.Slot
			return h
		case s.Record.Profile.Serving.IsZero(), now >= s.ExpiresAt:
			// After the expiry of the Lease, the address may belong to another pod.
			h.serving = false
		default:
			h.until = min(h.until, s.ExpiresAt)
		}
		h.address, h.next = s.Record.Profile.Address, s.Record.Profile.Leaving
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

// Standby decides the status of a standby, from the slots as the pod sees them. If the argument
// "childless" is false, a child of an earlier hold may still be alive.
func (r *Readiness) Standby(now time.Duration, slots []elector.View, turn Turn, childless bool) Decision {
	r.calm.stands(now)
	return r.calmly(now, r.decide(now, slots, turn, childless))
}

// Postponed reports whether a change of the pod's status is postponed at the instant "now".
func (r *Readiness) Postponed(now time.Duration) bool { return now < r.calm.until }

// calmly returns the decision d, or postpones it until the calm is over.
func (r *Readiness) calmly(now time.Duration, d Decision) Decision {
	if r.Postponed(now) {
		return Decision{Keep: true, Check: d.Check, Wake: min(d.Wake, r.calm.until)}
	}
	return d
}

// decide decides the status of a standby, as [Readiness.Standby], but never postpones it.
func (r *Readiness) decide(now time.Duration, slots []elector.View, turn Turn, childless bool) Decision {
	h := r.holders(now, slots)
	if r.began == 0 {
		r.began = now
	}
	switch soon := r.began + r.config.Budget.Retry; {
	case !h.known && r.config.Gate:
		// An earlier agent process may have stored that the pod is Ready. With the gate
		// "readiness" that old status must not stay.
		return decision(false, ReadyNoHolder, "the Leases of "+r.names()+" have not been read")
	case !h.known:
		return keep(pace.Never) // the last status is the best one known
	case h.mine && now < soon && !r.config.Gate:
		return keep(soon) // an earlier agent process held the slots, and this process resumes that hold within milliseconds
	case h.closed != "" && r.config.Mode == api.ReadinessHolder:
		return decision(false, ReadyNumberWaits, h.closed).noLaterThan(h.until)
	case r.config.Mode == api.ReadinessAll:
		return r.withoutPorts(h, childless)
	case r.config.Mode == api.ReadinessHolder:
		return decision(false, h.reason(), r.message(h)).noLaterThan(h.until)
	}
	// A standby stays Ready for a while after the holder has stopped serving, and also after the
	// end of a turn. After the turn an old pod's application must start again.
	r.learn(now, (h.serving || turn.Ready) && !turn.NotReady, turn.Beyond)
	// A successor stays out of its Services from the holder's release until its own hold. The
	// watch may show this pod's acquiring write (the field "mine") before the answer to that
	// write begins the hold.
	r.follows = h.next != "" && h.next == r.config.Identity || r.follows && (h.holder == "" || h.mine)
	if h.serving {
		r.target.see(h.address, h.until, turn.Ready)
	}
	return r.standby(now, h, turn, childless).noLaterThan(h.until)
}

// withoutPorts decides the status of a standby that waits for a shard and declares no ports. The
// message names no holder, so a change of one shard's holder causes no write.
func (r *Readiness) withoutPorts(h holders, childless bool) Decision {
	switch {
	case !childless:
		return decision(false, ReadyChildRunning, "a child of an earlier hold has not ended yet")
	case h.closed != "":
		return decision(true, ReadyNumberWaits, h.closed)
	}
	return decision(true, ReadyStandingBy, "this pod takes the first shard that becomes free")
}

// standby decides the status of a standby that may forward, and opens or closes the pod's ports.
func (r *Readiness) standby(now time.Duration, h holders, turn Turn, childless bool) Decision {
	switch {
	case !childless:
		return decision(false, ReadyChildRunning, "a child of an earlier hold has not ended yet")
	case turn.NotReady:
		r.Close()
		return decision(false, turn.Reason, turn.Message)
	case h.foreign && len(r.config.Ports) == 0:
		r.Close()
		return decision(true, ReadyOther, h.message())
	case h.foreign && !h.stranger:
		r.Close()
		return decision(false, ReadyOther, h.message()+"; it is of another workload, so this pod forwards nothing")
	case h.serving:
		return r.forward(now, h, r.orFollows(decision(true, ReadyStandingBy, h.readyMessage())))
	case h.reason() == ReadyPaused:
		r.Close()
		return decision(false, ReadyPaused, h.message())
	case now < r.until || turn.Ready:
		until := r.until
		if turn.Ready {
			until = pace.Never // package turn decides how long the turn may last
		}
		h.address = ""
		return r.forward(now, h, r.orFollows(decision(true, ReadyHandingOver, "waiting for a holder of "+h.slot+" that serves"))).noLaterThan(until)
	case h.holder == "":
		r.Close()
		return decision(false, ReadyNoHolder, h.message())
	}
	r.Close()
	return decision(false, ReadyNotServing, h.message()+", and does not serve")
}

// orFollows returns its argument, except in the successor pod. A successor is not Ready:
// its application soon takes the ports over, so no node may send it connections.
func (r *Readiness) orFollows(ready Decision) Decision {
	if !r.follows {
		return ready
	}
	return decision(false, ReadyFollows, ready.Message+"; this pod is to follow")
}

// noLaterThan returns the decision d. If the given instant is earlier than the next decision,
// the next decision comes at that instant.
func (d Decision) noLaterThan(at time.Duration) Decision {
	d.Wake = min(d.Wake, at)
	return d
}

// learn stores whether the holder serves. When the holder stops serving, learn sets the instant until
// which a standby stays Ready. The argument "beyond" is added to that instant.
func (r *Readiness) learn(now time.Duration, serving bool, beyond time.Duration) {
	if r.served && !serving {
		r.until = now + Handover(r.config.Budget) + beyond
	}
	r.served = serving
}

// forward opens the ports, and makes the holder's address their target; an empty address means no
// target. The result is the argument "ready", unless a port is in use, or the holder does not
// answer. If the pod is ending and its ports are closed, forward opens no port, and the pod's
// status stays.
func (r *Readiness) forward(now time.Duration, h holders, ready Decision) Decision {
	if r.config.Forwarder == nil {
		return ready
	}
	if r.lingers && !r.open {
		return keep(pace.Never)
	}
	if err := r.config.Forwarder.Open(); err != nil {
		return decision(false, ReadyPortsInUse, err.Error()).noLaterThan(now + r.config.Budget.Retry)
	}
	r.open = true
	r.config.Forwarder.SetTarget(h.address)
	return r.reach(now, h, ready)
}

// reach returns the argument "ready" if the holder's pod answers, or if no holder serves and the
// last holder answered. If the holder, or the last holder, does not answer, the standby is not
// Ready. Until the first check has ended, the status stays. The result also names the pod that
// the caller must check next.
func (r *Readiness) reach(now time.Duration, h holders, ready Decision) Decision {
	if h.address == "" {
		if r.target.lost {
			return decision(false, ReadyUnreachable, ready.Message+" and answers this pod, as the last one did not")
		}
		return ready
	}
	switch well, known := r.target.reaches(); {
	case !known:
		// The status stays only briefly, because most pods answer the first check within
		// milliseconds.
		ready = keep(pace.Never)
	case !well:
		ready = decision(false, ReadyUnreachable, h.message()+", and does not answer: "+r.target.err.Error())
	}
	check, at := r.target.check(now)
	ready.Check = check
	return ready.noLaterThan(at)
}

// Reached stores the result of a check of the pod at the address. The argument "err" is nil if
// that pod has answered.
func (r *Readiness) Reached(now time.Duration, address string, err error) {
	if r.target.address == address {
		r.target.learn(now, err, r.config.Jitter)
	}
}

// Unanswered remembers that the pod at the address did not answer a forwarded connection.
func (r *Readiness) Unanswered(address string) {
	if r.target.address == address && r.target.answered {
		r.target.due = true
	}
}

// Linger begins the linger of a standby that forwards. The standby accepts connections until none has
// come for the delay. The resulting channel is closed once every connection has ended. If no port is
// open, the result is nil.
func (r *Readiness) Linger(delay time.Duration) (left <-chan struct{}) {
	if !r.open {
		return nil
	}
	r.lingers = true
	return r.config.Forwarder.Linger(delay)
}

// Close closes the ports. The ports are free when Close returns, so that the agent may grant.
func (r *Readiness) Close() {
	if r.config.Forwarder != nil && r.open {
		r.config.Forwarder.Close()
		r.open = false
	}
}

func (r *Readiness) names() string { return strings.Join(r.config.Slots, ", ") }
