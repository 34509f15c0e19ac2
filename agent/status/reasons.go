// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
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

// PauseOf describes, for people, the pause of a slot; empty if the slot is not paused. If the
// value of the annotation is unknown, the text repeats it, because the person may have expected
// another effect.
func PauseOf(slot string, p api.Pause) string {
	switch {
	case p == "":
		return ""
	case !p.Known():
		return fmt.Sprintf("the slot %s is paused by hand (%s=%q is neither %s nor %s, and counts as %s)",
			slot, api.PausedAnnotation, cut(string(p)), api.PauseHold, api.PauseStop, api.PauseHold)
	case p == api.PauseRecover:
		return "the slot " + slot + " is paused by kubectl metaparticle recover, until that command succeeds"
	}
	return "the slot " + slot + " is paused by hand"
}

// mostOfValue is the number of bytes of an annotation's unknown value that a message repeats at
// most. Each known value is shorter.
const mostOfValue = 32

func cut(value string) string { return value[:min(len(value), mostOfValue)] }

// longest is the largest number of characters in the message of a pod condition or of an Event. The
// policy on Events admits no longer message.
const longest = 1024

// printable returns the text as people may see it. Texts of other programs can be part of a message,
// such as the identity of another program's elector. So printable replaces each character that cannot
// be printed by a space, and cuts a text that is too long.
func printable(text string) string { return clean(text, "") }

// printableLines returns the text as printable does, but keeps the ends of lines.
func printableLines(text string) string { return clean(text, "\n") }

// clean replaces each character that can neither be printed nor is to be kept, and cuts a text that is
// too long.
func clean(text, keep string) string {
	text = strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) || strings.ContainsRune(keep, r) {
			return r
		}
		return ' '
	}, text)
	if len(text) <= longest {
		return text
	}
	characters := []rune(text)
	if len(characters) <= longest {
		return text
	}
	return string(characters[:longest-1]) + "…"
}
