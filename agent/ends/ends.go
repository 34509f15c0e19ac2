// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package ends is the table of the reasons for which a hold ends, and of all that each of them entails. Whoever adds
// a reason adds a row, and the case in which package agent decides for it (hold.ends or hold.wish); what follows from
// it stands in the row.
package ends

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Grace is how long the children of a hold that ends may take to stop.
type Grace int

const (
	DrainGrace Grace = iota // the time that the lease budget leaves for a drain
	PodGrace                // the pod's own grace, as the hold is renewed meanwhile
	NoGrace                 // none, because another pod may run already
)

// Blame is who has failed, for a preference: a pod whose holds fail takes the slot back ever more seldom.
type Blame int

const (
	Nobody Blame = iota
	Application
	Node
)

// StartsWithin bounds how long the agent keeps a hold between a gated init container and the container after it. The
// kubelet waits for at most five minutes between two attempts to pull an image.
const StartsWithin = 5 * time.Minute

// Row is one reason for which a hold ends.
type Row struct {
	// Reason is its name in logs, Events, metrics, orders to shims and the condition DisruptionTarget.
	Reason string
	// Event is the message of the Event on the pod, in which %s is the slots; empty if another Event tells it.
	Event   string
	Warning bool

	Grace Grace
	// Expires reports that the hold is not renewed while its children stop: the sooner it expires, the sooner another
	// pod may run.
	Expires bool
	// Disrupts reports that the agent ends the application, which has neither ended by itself nor is stopped by a
	// person. A pod that ends for it gets the condition DisruptionTarget, by which a podFailurePolicy tells such an
	// end from a failure.
	Disrupts bool
	// Final reports that the container is to end with its child, with the child's own exit code. Otherwise the shim
	// would wait for another grant, and would later end as if a signal had killed the application.
	Final bool
	// Spares reports that a pod of a proven revision may stay Ready while its child stops.
	Spares bool
	// Unordered reports that the application has ended by itself, so that the agent looks for the cause.
	Unordered bool

	// GivesBack reports that the slots are released once all children are proven dead, also if the agent lives on.
	// Without it the same pod goes on, or nobody may know better than the Lease's expiry.
	GivesBack bool
	// HeadStart is for how long other pods may then acquire before this one; nil for not at all.
	HeadStart func(api.Budget) time.Duration
	// Pause is the time in which this pod takes no free slot, from the end of the hold.
	Pause time.Duration
	Blame Blame
	// Hangs reports that the rollout text counts a hang, and that this pod lets others go first for twice the time of
	// the annotation metaparticle.io/yield-after.
	Hangs bool
}

// These are all reasons. A standby acts within milliseconds after a release, or within Budget.Retry if its watch has
// ended: so long is the head start of an end that hands over.
var (
	Ended     = &Row{Reason: api.ReasonEnded, Unordered: true, GivesBack: true, Blame: Application}
	Succeeded = &Row{Reason: "Succeeded", Event: "recording the success in %s", GivesBack: true} // of a once claim
	Yielded   = &Row{Reason: "Yielded", Event: "draining to hand over %s",
		Grace: PodGrace, Disrupts: true, Spares: true, GivesBack: true, HeadStart: retry}
	// Hung ends the hold of an application that has failed its readiness probe for the time in
	// [api.YieldAfterAnnotation], after another pod has answered that it can take the slot.
	Hung = &Row{Reason: "Hung", Event: "draining to hand over %s: the application has failed its readiness probe for too long", Warning: true,
		Grace: PodGrace, Disrupts: true, GivesBack: true, HeadStart: retry, Blame: Application, Hangs: true}
	Paused        = &Row{Reason: "Paused", Grace: PodGrace, Disrupts: true, GivesBack: true} // the pause has its own Event
	ShardsChanged = &Row{Reason: "ShardsChanged", Event: "draining to release %s: the number of shards changes",
		Grace: PodGrace, Disrupts: true, GivesBack: true}
	Lost = &Row{Reason: "Lost", Event: "draining: somebody else wrote into %s", Warning: true, Expires: true, Disrupts: true}
	// Taken is [Lost] to another pod, which may run now.
	Taken    = &Row{Reason: Lost.Reason, Event: Lost.Event, Warning: true, Grace: NoGrace, Expires: true, Disrupts: true}
	CutOff   = &Row{Reason: "RenewDeadlinePassed", Event: "draining: %s could not be renewed in time", Warning: true, Disrupts: true, Blame: Node}
	Unproven = &Row{Reason: "EarlierShimUnproven", Event: "draining: a shim that is gone may still run under %s", Warning: true,
		Expires: true, Disrupts: true}
	Drained = &Row{Reason: "ShimDrained", Event: "draining: a shim drained by itself, not hearing of a renewal of %s", Warning: true, Disrupts: true}
	// PodDeleted ends a hold that began just before the agent knew of the pod's deletion.
	PodDeleted = &Row{Reason: "PodDeleted", Event: "draining to hand over %s: this pod is being deleted", Grace: PodGrace, Final: true}
	// NotGranted ends a hold under which this pod can start no child, usually because the disk is full. The disk does
	// not recover in a moment, so other pods may acquire first. If none does, this pod acquires again no more often than
	// a holder renews, and with a short lease duration than every five seconds.
	NotGranted = &Row{Reason: "NotGranted", Event: "giving up %s: the application cannot be started here, see the agent's log", Warning: true,
		GivesBack: true, HeadStart: func(b api.Budget) time.Duration { return b.Renew }, Pause: 5 * time.Second, Blame: Application}
	// NotStarted ends a hold because, after the success of an init container, the next container has not started
	// within [StartsWithin].
	NotStarted = &Row{Reason: "NotStarted", Warning: true, GivesBack: true, Blame: Application,
		Event: "giving up %s: the init container succeeded, and for " + StartsWithin.String() + " nothing that is to run after it has started"}
	// TurnFailed ends the hold of a newer revision whose application has not served in time.
	TurnFailed = &Row{Reason: "TurnFailed", Event: "draining to give %s back to an older revision: the application does not serve", Warning: true,
		Grace: PodGrace, Disrupts: true, GivesBack: true, Blame: Application}
)

func retry(b api.Budget) time.Duration { return b.Retry }

// All returns the rows.
func All() []*Row {
	return []*Row{Ended, Succeeded, Yielded, Hung, Paused, ShardsChanged, Lost, Taken, CutOff, Unproven, Drained, PodDeleted, NotGranted, NotStarted, TurnFailed}
}

// Lasts returns the time that the children have, of a pod with the grace.
func (r *Row) Lasts(b api.Budget, grace time.Duration) time.Duration {
	switch r.Grace {
	case PodGrace:
		return grace
	case NoGrace:
		return 0
	case DrainGrace:
	}
	return b.Drain
}
