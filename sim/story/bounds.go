// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// part is a wait that may be needed before a slot is in use. A bound is the sum of its
// parts.
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

// settling bounds the time from the last fault until a child runs under each slot that
// a healthy pod claims.
func (c *workloads) settling() time.Duration {
	d := c.longest
	return sum([]part{
		{"a pod that is being stopped has its grace, and then its agent ends", c.grace + world.Left},
		{"a request on its way is stored, and may be a renewal", c.API.Latest},
		{"the Lease of a pod that is gone expires", world.Slow(d)},
		{"a standby whose watch is mute tries, is refused, and waits anew", c.unmuting()},
		{"a standby without a watch finds out", c.unseeing()},
		{"a pod that cannot acquire its second slot keeps the first, and then releases it", world.Slow(d + d/6)},
		{"containers and enroll begin anew", 5 * time.Second},
		{"a kubelet restarts all containers of a pod, and its slot expires", c.restarting()},
		{"a person has written on the Lease", c.heeding()},
		{"the number of shards changes", c.changingShards()},
	})
}

// changingShards bounds the time for which a change of the number of shards keeps all Leases
// closed. The grace of the old holders is not included.
func (c *workloads) changingShards() time.Duration {
	if c.Sharded == 0 {
		return 0
	}
	return sum([]part{
		{"enroll decides, closes and opens, each time after a pause", 5 * time.Second},
		{"an old holder learns that its Lease is closed, at the latest by a renewal", world.Slow(c.longest)},
		{"the Lease of an old holder that is gone expires for enroll", c.longest},
		{"a sweep withdraws the right to a Lease that is gone", 2 * c.longest},
		{"an opened Lease expires for a standby that saw no release", world.Slow(c.longest)},
		{"a standby has a mute watch", c.reopening()},
	})
}

// reopening bounds the time until a standby whose watch is mute reads that a Lease is no longer
// closed.
func (c *workloads) reopening() time.Duration { return world.Slow(5 * time.Minute) }

// heeding bounds the time for which a slot has no holder after a person's last write to
// its Lease.
func (c *workloads) heeding() time.Duration {
	if !c.byHand {
		return 0
	}
	return sum([]part{
		{"a standby whose watch is mute reads that the slot is not paused any more", world.Slow(5 * time.Minute)},
		{"a pod that a release names comes first", world.Slow(time.Second)},
	})
}

// restarting bounds the time for which a slot has no holder when the kubelet restarts all
// containers of a pod. Only an agent of the gate "pod" asks the kubelet for this restart.
func (c *workloads) restarting() time.Duration {
	if !c.has(api.GatePod) {
		return 0
	}
	return sum([]part{
		{"the kubelet kills all containers", world.MostKubelet},
		{"the Lease expires, for nothing proves the application dead", world.Slow(c.longest)},
		{"a standby whose watch is mute tries, is refused, and waits anew", c.unmuting()},
		{"the containers are started in their order", 3 * time.Second},
	})
}

// unmuting bounds the time that standbys lose because their watches are mute. A mute watch is
// open, but shows no renewal. So the standby writes as soon as the last state that the standby
// saw expires. The server refuses this write, because the Lease has changed meanwhile, and the
// standby waits anew. If the workload has several slots, the standby loses that time for one
// slot after the other.
func (c *workloads) unmuting() time.Duration {
	return time.Duration(len(c.slots)) * (world.Slow(c.longest) + world.BudgetOf(c.longest).Retry)
}

// unseeing bounds the delay of a takeover by standbys that have no watch. A standby
// without a watch reads the Lease from time to time.
func (c *workloads) unseeing() time.Duration {
	look := world.Slow(min(world.Slowest, c.longest/6)) + world.Quick
	return sum([]part{
		{"a standby reads the last renewal", look},
		{"a standby reads that no renewal came until the Lease had expired", look},
		{"a standby leaves the holder the period of a renewal", world.Slow(c.longest / 6)},
		{"a standby reads that no renewal has come in that period", look},
		{"the same for the slots after the first", time.Duration(len(c.slots)-1) * (2*look + world.Slow(c.longest/6))},
	})
}

// handingOver bounds the time from the end of a holder to the start of the next child. The bound
// depends on the climate of the seed: the request faults that last for the whole story. In a fair
// climate a watch shows the release, and a refused pod tries again after a second.
func (c *workloads) handingOver() time.Duration {
	switch {
	case c.Sharded > 0:
		return 3*time.Second + world.Slow(c.longest) + c.unmuting() + c.unseeing() + c.reopening()
	case c.climate.Silent:
		return sum([]part{
			{"a standby waits until the state that it saw last expires", world.Slow(c.longest)},
			{"a refused standby waits until the state that it then reads expires", c.unmuting() + c.unseeing()},
			{"the kubelet restarts the containers of the last holder", c.restarting()},
			{"a pod that has given its slots back stands aside", c.standingAside()},
		})
	case c.climate != apiserver.Fair:
		return 3*time.Second + c.unseeing() + c.restarting() + c.standingAside()
	}
	return 3*time.Second + c.restarting() + c.standingAside()
}

// standingAside bounds the time for which a pod that needs several slots does not compete, after it has
// waited in vain for the rest of them. The pod for which it made room may end at once.
func (c *workloads) standingAside() time.Duration {
	if !slices.ContainsFunc(c.templates, func(t world.Template) bool { return !t.Any && len(t.Slots) > 1 }) {
		return 0
	}
	return world.Slow(min(api.RenewPeriod(c.longest), 20*time.Second))
}

// climates returns the sets of request faults that may last for the whole story of a seed. In each
// set, watches are of little use, while reads and writes work.
func climates(d time.Duration) []apiserver.Weather {
	return []apiserver.Weather{
		{Watches: apiserver.Busy}, {Watches: apiserver.Forbidden}, {Watches: apiserver.Failing}, {Watches: apiserver.Unheard},
		// A holder renews after a sixth of the duration. A watch that is cut sooner never shows
		// a renewal.
		{Idle: d / 20}, {Idle: d / 7},
		{Silent: true},
	}
}
