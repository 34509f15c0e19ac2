// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "github.com/metaparticle-io/metaparticle/api"

// These are the reasons for which a hold ends. They appear in logs, Events and metrics, and in
// orders to shims.
const (
	ReasonEnded = "Ended"
	// ReasonSucceeded ends the hold of a once claim whose work has succeeded.
	ReasonSucceeded = "Succeeded"
	ReasonYield     = "Yielded"
	ReasonPaused    = "Paused"
	// ReasonShardsChanged ends the hold of a shard, because the number of shards changes.
	ReasonShardsChanged = "ShardsChanged"
	ReasonLost          = "Lost"
	ReasonCutOff        = "RenewDeadlinePassed"
	ReasonUnproven      = "EarlierShimUnproven"
	ReasonDrained       = "ShimDrained"
	// ReasonPodDeleted ends a hold that began just before the agent knew of the pod's deletion.
	ReasonPodDeleted = "PodDeleted"
	// ReasonNotGranted ends a hold under which this pod can start no child. If the hold went
	// on, no other pod could hold, although another pod may be able to start its child.
	ReasonNotGranted = "NotGranted"
	// ReasonNotStarted ends a hold because, after the success of an init container, the next
	// container has not started in time.
	ReasonNotStarted = "NotStarted"
	// ReasonTurnFailed ends the hold of a newer revision, because in the revision's turn the
	// application has not served in time.
	ReasonTurnFailed = "TurnFailed"
)

// These are the reasons of the pod condition [api.ReadyCondition].
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
	// ReadyLeaving means that the application serves, but is about to stop.
	ReadyLeaving = "Leaving"
	// ReadyFollows means that the holder is leaving its Services, and that this pod is its
	// successor.
	ReadyFollows = "FollowsTheHolder"
	// ReadyPaused means that the slot is paused, and that no pod holds the slot.
	ReadyPaused = "Paused"
	// ReadyNumberWaits means that the stamp of a Lease does not admit the pod yet.
	ReadyNumberWaits = "NumberOfShardsWaits"
	// ReadyInTurn means the same for a holder as for a standby.
	ReadyInTurn = api.ReasonInTurn
	// ReadyStarted means that the application runs, and that the pod needs no slot any more.
	ReadyStarted = "Started"
	// ReadyDone means that the work of the pod's once claim is done.
	ReadyDone = "Done"
	// ReadyFailed means that the work of the pod's once claim has failed, and that the pod waits
	// before another attempt.
	ReadyFailed = "WorkFailed"
)

// These are the reasons of the Events on the pod, except the Events about the end of a hold.
const (
	eventAcquired    = api.ReasonAcquired
	eventReleased    = api.ReasonReleased
	eventNotReleased = "NotReleased"
	eventShimSilent  = "ShimSilent"
	eventKilling     = "Killing" // the kubelet's own Event has the same reason
	eventSkipped     = "Skipped"
	eventWaited      = "WaitedTooLong"
	eventSlowStart   = "StartsSlowly"
	eventDone        = "AlreadyDone"
)
