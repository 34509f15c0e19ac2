// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// These are the names of the invariants of once claims, like the names in check.go. Each comment
// describes the violation.
const (
	// repeated means that a child does work that is recorded as done.
	repeated = "repeated"
	// unearned means that work is recorded as done although the work has not succeeded.
	unearned = "unearned"
	// unrecorded means that a done key is lost, or that the release after a success records
	// no key.
	unrecorded = "unrecorded"
	// uncounted means that the release after a failure does not count the failure.
	uncounted = "uncounted"
	// miscounted means that a failure is counted although a signal had asked the child to stop.
	miscounted = "miscounted"
	// hasty means that a child begins work too soon: the delay after the work's last failure is not
	// over.
	hasty = "hasty"
)

// DoneOf returns the done keys in a Lease, which may be nil.
func DoneOf(l *apiserver.Lease) api.Done {
	if l == nil {
		return ""
	}
	return api.Done(l.Annotations[api.DoneAnnotation])
}

// doneCheck judges the done keys of once claims.
type doneCheck struct {
	*engine.Engine
	// earned has, for each hold, the key whose work has succeeded under that hold.
	earned map[string]string
	// failed has, for each hold, the key whose work has failed under that hold. The field "asked"
	// has the holds whose child got a signal to stop.
	failed map[string]string
	asked  map[string]bool
	// reported has, as keys, the holds whose shim has reported success or failure to an agent
	// process. Each value is a function that reports whether that agent process has died.
	reported map[string]func() bool
	// counted has, for each key, the instant at which the last failure was stored.
	counted map[string]time.Duration
}

func newDoneCheck(e *engine.Engine) doneCheck {
	return doneCheck{
		Engine: e, earned: map[string]string{}, failed: map[string]string{}, asked: map[string]bool{},
		reported: map[string]func() bool{}, counted: map[string]time.Duration{},
	}
}

// begins demands that no child does work that is recorded as done, or whose delay after a failure
// is not over. The argument "speed" is the rate of the fastest clock.
func (d doneCheck) begins(child, key string, l *apiserver.Lease, speed float64) {
	if key != "" && d.has(l, key) {
		d.Violate(repeated, "%s begins the work %s, which is done", child, key)
	}
	if l == nil {
		return
	}
	f := api.Failures(l.Annotations[api.FailuresAnnotation])
	if since := d.Now() - d.counted[key]; f.Count(key) > 0 && since < time.Duration(float64(f.Delay(key))/speed) {
		d.Violate(hasty, "%s begins the work %s %v after its failure %d", child, key, since, f.Count(key))
	}
}

// has reports whether the key is done. The check does not call api.Done.Has, because a bug in
// that method must not deceive the check.
func (doneCheck) has(l *apiserver.Lease, key string) bool {
	return slices.Contains(DoneOf(l).Keys(), key)
}

// ends notes that the work of a hold has ended without a stop signal.
func (d doneCheck) ends(hold, key string, succeeded bool) {
	if succeeded {
		d.earned[hold] = key
	} else {
		d.failed[hold] = key
	}
}

// asks notes that a signal asks the child of a hold to stop.
func (d doneCheck) asks(hold string) { d.asked[hold] = true }

// arrives notes the success or the failure in a shim's message about a hold. The caller calls the method
// when the message reaches an agent process.
func (d doneCheck) arrives(died func() bool, hold string, completed, failed bool) {
	if completed && d.earned[hold] != "" || failed && d.failed[hold] != "" {
		d.reported[hold] = died
	}
}

// stored judges the write of a Lease. The write must drop no done key. The write may add
// only the key whose work has succeeded under the hold that the write releases. If the
// agent has a report of the success, that release must add the key. Without such a report
// the work runs again.
func (d doneCheck) stored(by, slot string, was, is *apiserver.Lease) {
	before, after := DoneOf(was).Keys(), DoneOf(is).Keys()
	hold := was.Annotations[api.HoldAnnotation]
	for _, key := range before {
		if !slices.Contains(after, key) {
			d.Violate(unrecorded, "%s drops the done key %s of %s", by, key, slot)
		}
	}
	// Enroll frees a Lease with a closed stamp only if the holder has not written for the whole
	// lease duration. Such a holder cannot record its success in the Lease, so that write of
	// enroll does not count as a release.
	released := is.Holder == "" && was.Holder != "" && (by == was.Holder || !StampOf(was).Closed)
	if earned := d.earned[hold]; d.reported[hold] != nil && earned != "" && released && !slices.Contains(after, earned) {
		d.Violate(unrecorded, "%s releases hold %s of %s without the key %s", by, hold, slot, earned)
	}
	for _, key := range after {
		if !slices.Contains(before, key) && (d.earned[hold] != key || is.Holder != "") {
			d.Violate(unearned, "%s records %s in %s, and the work has not succeeded under hold %s", by, key, slot, hold)
		}
	}
	over := released || is.Holder == was.Holder && is.Annotations[api.HoldAnnotation] != hold
	d.counts(by, hold, over, api.Failures(was.Annotations[api.FailuresAnnotation]), api.Failures(is.Annotations[api.FailuresAnnotation]))
}

// counts judges the failures in the write of a Lease, for [doneCheck.stored]. The argument "over"
// reports that the holder ends its own hold by the write. An agent process that has died is
// excused, because it may have lost the report of the failure.
func (d doneCheck) counts(by, hold string, over bool, before, after api.Failures) {
	key, died := d.failed[hold], d.reported[hold]
	if over && died != nil && !died() && key != "" && after.Count(key) != before.Count(key)+1 {
		d.Violate(uncounted, "%s ends hold %s without its failure of %s", by, hold, key)
	}
	for _, counted := range after.Keys() {
		if after.Count(counted) <= before.Count(counted) {
			continue
		}
		if d.asked[hold] && key == "" {
			d.Violate(miscounted, "%s counts a failure of %s under hold %s, whose child was asked to stop", by, counted, hold)
		}
		d.counted[counted] = d.Now()
	}
	for _, counted := range before.Keys() {
		if after.Count(counted) == 0 && d.earned[hold] != counted && len(after.Keys()) < 8 {
			d.Violate(uncounted, "%s drops the failures of %s", by, counted)
		}
	}
}
