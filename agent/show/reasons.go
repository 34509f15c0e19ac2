// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "github.com/metaparticle-io/metaparticle/api"

// Reasons why a hold ends, as they appear in logs, in Events, in metrics and at the
// shims.
const (
	ReasonEnded    = "Ended"
	ReasonYield    = "Yielded"
	ReasonPaused   = "Paused"
	ReasonLost     = "Lost"
	ReasonCutOff   = "RenewDeadlinePassed"
	ReasonUnproven = "EarlierShimUnproven"
	ReasonDrained  = "ShimDrained"
	// ReasonPodDeleted ends a hold that began before the agent knew of the pod's
	// deletion.
	ReasonPodDeleted = "PodDeleted"
	// ReasonNotGranted ends a hold under which this pod can start no child. Otherwise
	// the pod would keep the slot from pods that can start one.
	ReasonNotGranted = "NotGranted"
	// ReasonNotStarted ends a hold under which no container followed an init container.
	ReasonNotStarted = "NotStarted"
	// ReasonTurnFailed: a newer revision has not served in its turn.
	ReasonTurnFailed = "TurnFailed"
)

// Reasons of the pod's condition.
const (
	ReadyHolding      = "Holding"
	ReadyStarting     = "Starting"
	ReadyNotReady     = "ApplicationNotReady"
	ReadyDraining     = "Draining"
	ReadyStandingBy   = "StandingBy"
	ReadyHandingOver  = "HandingOver"
	ReadyNoHolder     = "NoHolder"
	ReadyNotServing   = "HolderNotServing"
	ReadyOther        = "OtherWorkloadHolds"
	ReadyPortsInUse   = "PortsInUse"
	ReadyUnreachable  = "HolderUnreachable"
	ReadyChildRunning = api.ReasonChildRunning
	// ReadyLeaving: the application serves, and is to stop.
	ReadyLeaving = "Leaving"
	// ReadyFollows: the holder leaves, and this pod is to hold next.
	ReadyFollows = "FollowsTheHolder"
	// ReadyPaused: the slot is paused, and no pod holds.
	ReadyPaused = "Paused"
	// ReadyInTurn: the application serves, but not for long enough yet.
	ReadyInTurn = "InItsTurn"
)

// Reasons of the Events on the pod, beside those of a hold's end.
const (
	eventAcquired    = api.ReasonAcquired
	eventReleased    = api.ReasonReleased
	eventNotReleased = "NotReleased"
	eventShimSilent  = "ShimSilent"
	eventKilling     = "Killing" // as the kubelet calls it
)
