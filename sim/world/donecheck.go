// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// These are the names of the invariants of once claims, as the names in check.go. Each
// comment describes the violation.
const (
	// repeated means that a child does work that is recorded as done.
	repeated = "repeated"
	// unearned means that work is recorded as done, and has not succeeded.
	unearned = "unearned"
	// unrecorded means that a done key is lost, or that the release after a success records
	// no key.
	unrecorded = "unrecorded"
)

// doneOf returns the done keys in a Lease, which may be nil.
func doneOf(l *kube.Lease) api.Done {
	if l == nil {
		return ""
	}
	return api.Done(l.Annotations[api.DoneAnnotation])
}

// doneCheck judges the done keys of once claims.
type doneCheck struct {
	*engine
	// earned has the key whose work has succeeded under a hold.
	earned map[string]string
	// reported has the holds whose success a shim has reported to an agent process.
	reported map[string]bool
}

func newDoneCheck(e *engine) doneCheck {
	return doneCheck{engine: e, earned: map[string]string{}, reported: map[string]bool{}}
}

// begins demands that no child does work that is recorded as done.
func (d doneCheck) begins(child, key string, l *kube.Lease) {
	if key != "" && d.has(l, key) {
		d.violate(repeated, "%s begins the work %s, which is done", child, key)
	}
}

// has reports whether the key is done. The check does not depend on the code that it
// judges.
func (doneCheck) has(l *kube.Lease, key string) bool { return slices.Contains(doneOf(l).Keys(), key) }

// succeeds notes that the work of a hold has succeeded.
func (d doneCheck) succeeds(hold, key string) { d.earned[hold] = key }

// arrives notes a shim's report of a success.
func (d doneCheck) arrives(message []byte) {
	st, answer, err := gate.DecodeMessage(message)
	must(err)
	if answer == nil && st.Completed {
		d.reported[st.Hold] = d.earned[st.Hold] != ""
	}
}

// stored judges the write of a Lease. The write must drop no done key. The write may add
// only the key whose work has succeeded under the hold that the write releases. If the
// agent has a report of the success, that release must add the key. Without such a report
// the work runs again.
func (d doneCheck) stored(by, slot string, was, is *kube.Lease) {
	before, after := doneOf(was).Keys(), doneOf(is).Keys()
	hold := was.Annotations[api.HoldAnnotation]
	for _, key := range before {
		if !slices.Contains(after, key) {
			d.violate(unrecorded, "%s drops the done key %s of %s", by, key, slot)
		}
	}
	if earned := d.earned[hold]; d.reported[hold] && is.Holder == "" && was.Holder != "" && !slices.Contains(after, earned) {
		d.violate(unrecorded, "%s releases hold %s of %s without the key %s", by, hold, slot, earned)
	}
	for _, key := range after {
		if !slices.Contains(before, key) && (d.earned[hold] != key || is.Holder != "") {
			d.violate(unearned, "%s records %s in %s, and the work has not succeeded under hold %s", by, key, slot, hold)
		}
	}
}
