// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"encoding/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// StampOf returns the stamp of a Lease.
func StampOf(l *apiserver.Lease) api.Stamp { return api.ParseStamp(l.Annotations[api.StampAnnotation]) }

// SupportersOf returns the pods that support the holder of a Lease.
func SupportersOf(l *apiserver.Lease) api.Supporters {
	return api.ParseSupporters(l.Annotations[api.SupportersAnnotation], l.Holder, l.Annotations[api.HoldAnnotation])
}

// Rollout is a part of what a Lease says about turns.
type Rollout struct {
	// Hold is the hold that wrote this; without a Yielder it is no turn.
	Hold, Yielder string
	Proven        api.Revision
	// Hangs counts the holds that have ended because their applications hung.
	Hangs int
}

// RolloutOf returns what a Lease says about turns; zero if it says nothing that can be read.
func RolloutOf(l *apiserver.Lease) Rollout {
	var text struct {
		Hold, Yielder, Proven string
		Hangs                 int
	}
	if json.Unmarshal([]byte(l.Annotations[api.RolloutAnnotation]), &text) != nil {
		return Rollout{}
	}
	proven, err := api.ParseRevision(text.Proven)
	if err != nil {
		return Rollout{}
	}
	return Rollout{text.Hold, text.Yielder, proven, text.Hangs}
}

// restamped reports whether the update of a Lease wakes enroll.
func restamped(was, is *apiserver.Lease) bool { return !step.SameStamp(seenLease(was), seenLease(is)) }
