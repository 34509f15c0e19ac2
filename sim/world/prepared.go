// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"
)

// afresh replaces the standbys by pods whose init containers have not run.
func (t *table) afresh() bool {
	if len(t.templates[0].inits) == 0 {
		return false
	}
	t.do(func() {
		holder := t.holder(t.slot).pod()
		for _, p := range slices.Clone(t.pods) {
			if p != holder {
				p.stop()
			}
		}
	})
	t.pass(t.grace + left)
	t.do(t.heal)
	return t.ready()
}

// unprepared: an init container that fails waits for its back-off, and another pod
// takes the slot.
func (t *table) unprepared() {
	if !t.afresh() {
		return
	}
	t.handover(func(c *child) { c.pod().stop() })
	t.handover(func(c *child) {
		c.exits("fails", 1)
	})
}

// prepared: the application runs under the hold of its init containers, and no other
// pod holds in between.
func (t *table) prepared() {
	if !t.afresh() {
		return
	}
	t.handover(func(c *child) { c.pod().stop() })
	var main *child
	t.until(time.Minute, func() bool {
		for _, c := range t.ledger.alive {
			if !c.container.init && c.began > t.at && c.pod() != t.former {
				main = c
			}
		}
		return main != nil
	})
	if main == nil {
		t.fail(nobody, "no application a minute after its init containers")
		return
	}
	t.do(func() {
		for _, c := range main.pod().containers {
			if c.init && c.since > t.at && c.prepared != main.hold {
				t.violate(kept, "%s runs under hold %s, and was prepared under %s", main.name, main.hold, c.prepared)
			}
		}
	})
}
