// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"time"
)

// forgetful: as vanished, while enroll has just started and has no Role in its cache
// yet.
func (t *table) forgetful() {
	t.do(func() {
		for _, e := range slices.Clone(t.enrolls) {
			e.retire()
		}
		t.serial++
		e := t.newEnroller(fmt.Sprintf("enroll-%d", t.serial))
		e.cache = cache{at: 1, pinned: true}
		t.after(t.budget.Duration, func() { e.cache.pinned = false; e.nudge() })
	})
	t.vanished()
}

// vanished: after a Lease is deleted, all pods wait a full duration, and no longer.
func (t *table) vanished() { t.vanishedWith(func(*child) {}) }

func (t *table) vanishedWith(more func(*child)) {
	c := t.once(func(c *child) {
		must(t.api.remove("somebody", "Lease", t.slot, "", ""))
		more(c)
	})
	gone := t.now()
	bound := time.Duration(float64(t.budget.Duration)/(1-skew)) + slowest + time.Second
	if !t.until(bound, t.free(c)) {
		t.fail(nobody, "nobody holds %v after the Lease vanished", bound)
		return
	}
	t.do(func() {
		if early := time.Duration(float64(t.budget.Duration) / (1 + skew)); t.next(c).began-gone < early {
			t.violate(freed, "%s began %v after the Lease vanished", t.holder(t.slot).name, t.next(c).began-gone)
		}
	})
}

// slowest is the longest pause of a standby that found no Lease, and of enroll.
const slowest = 10 * time.Second
