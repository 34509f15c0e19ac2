// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// slow returns the true time of a duration that the slowest clock measures.
func slow(d time.Duration) time.Duration { return time.Duration(float64(d) / (1 - skew)) }

// budgetOf returns the budget of a lease duration.
func budgetOf(d time.Duration) api.Budget {
	budget, err := api.NewBudget(d)
	must(err)
	return budget
}

// part is a wait that may be needed before a slot is in use; a bound is their sum.
type part struct {
	what  string
	lasts time.Duration
}

func sum(parts []part) (all time.Duration) {
	for _, p := range parts {
		all += p.lasts
	}
	return all
}

// settling bounds how long after the last fault a slot that a healthy pod claims is
// without a child that runs.
func (c *chaos) settling() time.Duration {
	d := c.longest
	return sum([]part{
		{"a pod that is being stopped has its grace, and then its agent", c.grace + left},
		{"a request that is on its way is stored, and may be a renewal", c.latest},
		{"the Lease of a pod that is gone expires", slow(d)},
		{"a standby whose watch is mute tries, is refused, and waits anew", c.unmuting()},
		{"a standby without a watch finds out", c.unseeing()},
		{"a pod that cannot have its second slot keeps the first, and then stands back", slow(d + d/6)},
		{"containers and enroll begin anew", 5 * time.Second},
		{"a kubelet restarts all containers, whose slot expires", c.restarting()},
		{"a person has written on the Lease", c.heeding()},
	})
}

// heeding bounds how long a slot has no holder after the last words of a person.
func (c *chaos) heeding() time.Duration {
	if c.person == nil {
		return 0
	}
	return sum([]part{
		{"a standby whose watch is mute reads that the slot is not paused any more", slow(5 * time.Minute)},
		{"a pod that a release names comes first", slow(time.Second)},
	})
}

// restarting bounds how long a slot has no holder after an agent of the gate "pod" has
// the kubelet restart all containers. Other gates need no such time.
func (c *chaos) restarting() time.Duration {
	if !c.has(api.GatePod) {
		return 0
	}
	return sum([]part{
		{"the kubelet kills all containers", mostKubelet},
		{"the Lease expires, for nothing proves the application dead", slow(c.longest)},
		{"a standby whose watch is mute tries, is refused, and waits anew", c.unmuting()},
		{"the containers are started in their order", 3 * time.Second},
	})
}

// has reports whether some workload has the gate.
func (c *chaos) has(g api.Gate) bool {
	return slices.ContainsFunc(c.templates, func(t template) bool { return t.gate == g })
}

// unmuting bounds how long standbys whose watches are mute wait in vain: what they saw
// last expires, and their write is refused. They try one slot after the other.
func (c *chaos) unmuting() time.Duration {
	return time.Duration(len(c.slots)) * (slow(c.longest) + budgetOf(c.longest).Retry)
}

// unseeing bounds by how much a takeover is late where standbys have no watch, and read
// now and then.
func (c *chaos) unseeing() time.Duration {
	look := slow(min(slowest, c.longest/6)) + quick
	return sum([]part{
		{"a standby reads the last renewal", look},
		{"a standby reads that nothing came of it until it had expired", look},
		{"a standby leaves the holder the period of a renewal", slow(c.longest / 6)},
		{"a standby reads that nothing has come of that", look},
		{"the same for the slots after the first", time.Duration(len(c.slots)-1) * (2*look + slow(c.longest/6))},
	})
}

// handingOver bounds, for the climate, the time from a holder's end to the next child.
// In a fair climate a watch shows the release, and a pod whose write is refused tries
// again after a second.
func (c *chaos) handingOver() time.Duration {
	switch {
	case c.climate.silent:
		return sum([]part{
			{"a standby waits for what it saw last to expire", slow(c.longest)},
			{"a standby that was refused waits for what it reads then", c.unmuting() + c.unseeing()},
			{"the last one had its containers restarted", c.restarting()},
		})
	case c.climate != fair:
		return 3*time.Second + c.unseeing() + c.restarting()
	}
	return 3*time.Second + c.restarting()
}

// climates returns the lasting weathers: watches are of little use, while reads and
// writes work.
func climates(d time.Duration) []weather {
	return []weather{
		{watches: busy}, {watches: forbidden}, {watches: failing}, {watches: unheard},
		// Renewals come after a sixth of the duration. A watch that is cut sooner never shows
		// one.
		{idle: d / 20}, {idle: d / 7},
		{silent: true},
	}
}
