// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

// Pause is the value of [PausedAnnotation]; empty if the slot is not paused.
type Pause string

const (
	// PauseHold keeps every pod from acquiring the slot, but the holder of the slot continues to
	// hold.
	PauseHold Pause = "hold"
	// PauseStop keeps every pod from acquiring the slot, and makes the holder drain and release.
	PauseStop Pause = "stop"
	// PauseRecover has the effect of [PauseHold], also for agents of earlier versions. The
	// command "kubectl metaparticle recover" writes this value, and later removes it.
	PauseRecover Pause = "recover"
)

// PauseOf returns the pause in the annotations of a Lease. An annotation with an empty
// value means [PauseHold].
func PauseOf(annotations map[string]string) Pause {
	value, paused := annotations[PausedAnnotation]
	if paused && value == "" {
		return PauseHold
	}
	return Pause(value)
}

// Known reports whether this version of Metaparticle knows the value. An unknown value
// counts as [PauseHold] and not as [PauseStop]. So an unknown value never stops an application. A
// person can still write [PauseStop] to stop the application.
func (p Pause) Known() bool { return p == "" || p == PauseHold || p == PauseStop || p == PauseRecover }

// Yield is a request that the holder ends one hold, which the field Hold names. If the present hold
// has another number, the holder's agent ignores the yield. So an agent that reads a yield late
// does not end a later hold.
type Yield struct {
	// Hold is the number in [HoldAnnotation].
	Hold string
	// Successor is the identity of the pod that is to hold next; empty if any pod may hold next.
	Successor string
}

// ParseYield reads a value of [YieldAnnotation].
func ParseYield(value string) Yield {
	hold, successor, _ := strings.Cut(value, " ")
	return Yield{Hold: hold, Successor: successor}
}

// String returns the value of [YieldAnnotation]; empty for no yield.
func (y Yield) String() string {
	if y.Successor == "" {
		return y.Hold
	}
	return y.Hold + " " + y.Successor
}
