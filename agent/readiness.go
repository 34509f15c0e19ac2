// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// Reasons of the pod's condition.
const (
	readyHolding      = "Holding"
	readyStarting     = "Starting"
	readyNotReady     = "ApplicationNotReady"
	readyDraining     = "Draining"
	readyStandingBy   = "StandingBy"
	readyHandingOver  = "HandingOver"
	readyNoHolder     = "NoHolder"
	readyNotServing   = "HolderNotServing"
	readyOther        = "OtherWorkloadHolds"
	readyPortsInUse   = "PortsInUse"
	readyUnreachable  = "HolderUnreachable"
	readyChildRunning = "ChildOfEarlierHold"
)

// outlook is what a standby's readiness remembers.
type outlook struct {
	// good: the slots were in good hands when they were last looked at.
	good bool
	// until is how long, after they no longer are, the pod goes on as if.
	until time.Duration
	// open: the ports are listened on.
	open bool
	// reach is about the holder that is forwarded to; askAt is when one that
	// did not answer is asked again.
	reach reach
	askAt time.Duration
}

// handover is how long a standby stays Ready without a holder that serves: a
// holder that vanished blocks the slot for a lease duration, and its successor
// has the period of a renewal to start in. Longer than that is an outage, and
// Services may know.
func handover(b api.Budget) time.Duration { return b.Duration + b.Renew }

// hands is who a standby's slots are with.
type hands struct {
	// known: every slot was seen.
	known bool
	// serving: one pod of this workload holds all of them and serves at address.
	serving bool
	address string
	// foreign: somebody who is not of this workload holds one of them.
	foreign bool
	// stranger: that somebody does not say whose it is.
	stranger bool
	// holder is the pod, slot the Lease, that the message is about.
	holder, slot string
}

// hands says who has the slots, as a standby sees them.
func (a *Agent) hands() hands {
	h := hands{known: true, serving: true}
	for _, s := range a.slots {
		r, ok := s.view.Record()
		if !ok {
			return hands{}
		}
		if h.slot == "" || r.Holder != "" && !a.self.Mine(r) {
			h.holder, h.slot = podOf(r), s.name
		}
		switch {
		case r.Holder == "" || a.self.Mine(r):
			h.serving = false
		case r.Notes.Workload != a.config.Workload || a.config.Workload == "":
			h.serving, h.foreign = false, true
			h.stranger = r.Notes.Workload == ""
			h.holder, h.slot = podOf(r), s.name
			return h
		case r.Notes.Serving.IsZero(), a.now >= s.view.ExpiresAt(a.self.Budget.Duration):
			// In the latter case its address may be another pod's by now.
			h.serving = false
		default:
			a.wakeAt(s.view.ExpiresAt(a.self.Budget.Duration))
		}
		h.address = r.Notes.Address
	}
	return h
}

// podOf is the holder's pod; another elector's identity as it is.
func podOf(r lease.Record) string {
	if i := strings.LastIndex(r.Holder, "_"); i > 0 && r.Hold != "" {
		return r.Holder[:i]
	}
	return r.Holder
}

// showStandby makes the pod look as a standby does.
func (a *Agent) showStandby(ctx context.Context) {
	h := a.hands()
	if _, showing := a.config.Gate.(Showing); showing && !h.known {
		// Readiness is all there is, and an earlier process may have stored it.
		a.show(false, readyNoHolder, "the Leases of "+a.names()+" have not been read")
		return
	}
	if !h.known {
		return // whatever was shown last is the best there is
	}
	if a.config.Readiness == api.ReadinessHolder {
		a.show(false, readyStandingBy, a.standing(h))
		return
	}
	a.rememberHands(h)
	ports := len(a.config.Ports) > 0
	switch {
	case a.shims.Alive():
		a.show(false, readyChildRunning, "a child of an earlier hold has not ended yet")
	case h.foreign && !ports:
		a.show(true, readyOther, a.standing(h))
	case h.foreign && !h.stranger:
		a.closePorts()
		a.show(false, readyOther, a.standing(h)+"; it is of another workload, so this pod forwards nothing")
	case h.serving:
		a.forward(ctx, h, readyStandingBy, a.standing(h))
	case a.now < a.outlook.until:
		a.wakeAt(a.outlook.until)
		h.address = ""
		a.forward(ctx, h, readyHandingOver, "waiting for a holder of "+h.slot+" that serves")
	case h.holder == "":
		a.closePorts()
		a.show(false, readyNoHolder, "nobody holds "+h.slot)
	default:
		a.closePorts()
		a.show(false, readyNotServing, a.standing(h)+", and does not serve")
	}
}

// rememberHands notes since when the slots are not in good hands.
func (a *Agent) rememberHands(h hands) {
	switch {
	case h.serving:
		a.outlook.good = true
	case a.outlook.good:
		a.outlook.good = false
		a.outlook.until = a.now + handover(a.self.Budget)
	}
}

func (a *Agent) standing(h hands) string {
	if h.holder == "" {
		return "nobody holds " + h.slot
	}
	return h.holder + " holds " + h.slot
}

// forward makes the pod Ready, if its ports answer in the holder's stead.
func (a *Agent) forward(ctx context.Context, h hands, reason, message string) {
	if len(a.config.Ports) > 0 && a.config.Forwarder != nil {
		if err := a.openPorts(); err != nil {
			a.show(false, readyPortsInUse, err.Error())
			return
		}
		a.config.Forwarder.SetTarget(h.address)
		if h.address != "" {
			reached, known := a.reachable(ctx, h.address)
			switch {
			case !known:
				return // the answer takes milliseconds; until then nothing is news
			case !reached:
				a.show(false, readyUnreachable, message+", and does not answer: "+a.outlook.reach.err.Error())
				return
			}
		}
	}
	a.show(true, reason, message)
}

func (a *Agent) openPorts() error {
	if err := a.config.Forwarder.Open(); err != nil {
		a.wakeAt(a.now + a.self.Budget.Retry)
		return err
	}
	a.outlook.open = true
	return nil
}

// closePorts gives the ports back. It returns when they are free, so that a
// child may be granted.
func (a *Agent) closePorts() {
	if a.config.Forwarder != nil && a.outlook.open {
		a.config.Forwarder.Close()
		a.outlook.open = false
	}
}

// showHolder makes the pod look as a holder does. Its own child is what serves,
// so a handover begins when it ends.
func (a *Agent) showHolder(h *hold) {
	running := a.shims.Running(h.id)
	if a.serves(h) {
		a.outlook.good = true
		a.status.show(appearance{Ready: true, Hold: h.id, Reason: readyHolding, Message: "this pod holds " + a.names()})
		return
	}
	if running {
		a.status.show(appearance{Hold: h.id, Reason: readyNotReady, Message: "this pod holds " + a.names() + "; its application does not pass its probes"})
		return
	}
	if soon := h.since + a.self.Budget.Retry; a.now < soon && !a.probes.Waits() {
		// A child starts within milliseconds. To be not Ready for so long, and
		// Ready again, would only make Services flap.
		a.wakeAt(soon)
		return
	}
	a.status.show(appearance{Hold: h.id, Reason: readyStarting, Message: "this pod holds " + a.names() + "; its application is about to start"})
}

// showDraining makes the pod look as one whose child is on its way out.
func (a *Agent) showDraining(h *hold) {
	_, showing := a.config.Gate.(Showing)
	if soon := h.drains + a.self.Budget.Retry; a.now < soon && !showing {
		// Most children stop within that, and the pod is a standby then.
		a.wakeAt(soon)
		return
	}
	a.status.show(appearance{Hold: h.id, Reason: readyDraining, Message: "the application is stopped: " + h.reason})
}

func (a *Agent) show(ready bool, reason, message string) {
	a.status.show(appearance{Ready: ready, Reason: reason, Message: message})
}

func (a *Agent) names() string { return strings.Join(a.config.Slots, ", ") }
