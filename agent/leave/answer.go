// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Standby is what a standby knows when the holder of its slot has announced an end.
type Standby struct {
	// Asked reports that the holder waits for this pod's answer. ByPerson reports that a person has named this pod, and
	// Follows that the holder has named it as its successor.
	Asked, ByPerson, Follows bool
	// Soon reports that the announcement still waits for answers.
	Soon bool
	// Serves reports that, by the Lease, the holder's application serves, and Hangs that the holder announces that it
	// hangs, so that any pod's answer counts.
	Serves, Hangs bool
	// Said is what this pod has said about the announcement; empty for nothing.
	Said api.Say
	// Able reports that this pod could start its application now, and Free that package turn lets it take the slot.
	// Wishes reports that it still wishes for the slot, and knows that it is not being deleted.
	Able, Free, Wishes bool
	// Stays reports that this pod is Ready and forwards, and Lingers that it is being deleted and still forwards.
	Stays, Lingers bool
	// SameRevision reports that the holder has this pod's revision, Turns that the two take turns, and Hindered that the
	// start lock keeps this pod from starting.
	SameRevision, Turns, Hindered bool
	// PreparedAt is the instant from which no node sends connections to this pod ([PreparedAt]).
	PreparedAt time.Duration
}

// Answer returns what the standby says to the announcement; empty for nothing. The second result is the instant of the
// next decision, unless the facts change before that.
func Answer(now time.Duration, s Standby) (say api.Say, wake time.Duration) {
	takes := s.Able && s.Free
	switch {
	case s.Asked, s.Follows && s.Said != "":
		if s.Asked && !s.ByPerson {
			takes = s.Able && s.Wishes
		}
		switch {
		case s.Said == "" && !takes:
			return "", pace.Never
		case now >= s.PreparedAt || s.Said == api.Prepared:
			return api.Prepared, pace.Never
		case s.Said != "":
			return s.Said, s.PreparedAt
		case s.Stays:
			return api.Either, s.PreparedAt
		}
		return api.Takes, s.PreparedAt
	case s.Said != "", s.Follows:
		if !s.Serves && s.Said != "" && s.Said != api.Takes {
			return api.Prepared, pace.Never // the pod's status has made the forwarder let new connections wait
		}
		return s.Said, pace.Never
	case !s.Serves:
		// The application hangs, so whoever can take the slot says so. Pods of two revisions of one workload take turns
		// instead.
		if s.Hangs && takes && !s.Turns && !s.Hindered {
			return api.Takes, pace.Never
		}
	case s.Stays && takes && s.SameRevision:
		return api.Either, pace.Never
	// A deleted standby that forwards does not stay, but must let connections wait. So this standby answers after the
	// holder has named its successor. Then no answer counts for a pod that stays.
	case s.Stays, s.Lingers && !s.Soon:
		return api.Stays, pace.Never
	}
	return "", pace.Never
}
