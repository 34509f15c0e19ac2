// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// leaseRows has the cases of the story "table" about lost Leases and Roles, and about enroll.
type leaseRows struct{ *demands }

func (r leaseRows) rows() map[string]func() {
	return map[string]func(){
		"lease deleted":                     func() { r.vanished(func(*world.Child) {}) },
		"lease deleted, enroll's cache old": r.forgetful,
		"lease deleted, then silence":       r.farewell,
		"opted out, then Role lost":         func() { r.undisturbed(r.loseRole) },
		"opted out, then lease lost":        r.unleased,
		"blocked, then shortened":           r.blocked,
	}
}

// vanished deletes the Lease, and applies a further cause. All pods must wait for a full lease
// duration, and one of them must hold soon after.
func (r leaseRows) vanished(more func(*world.Child)) {
	c := r.once(func(c *world.Child) {
		engine.Must(r.API.Remove("somebody", "Lease", r.slot, "", ""))
		more(c)
	})
	gone := r.Now()
	bound := time.Duration(float64(r.budget.Duration)/(1-world.Skew)) + world.Slowest + time.Second
	if !r.Until(bound, r.free(c)) {
		r.fail(world.Nobody, "nobody holds %v after the Lease vanished", bound)
		return
	}
	r.Do(func() {
		if early := time.Duration(float64(r.budget.Duration) / (1 + world.Skew)); r.next(c).Began-gone < early {
			r.Violate(world.Freed, "%s began %v after the Lease vanished", r.Checks.Holder(r.slot).Name, r.next(c).Began-gone)
		}
	})
}

// forgetful replaces the processes of enroll by a new process, and deletes the Lease. The cache of
// the new process shows no Role yet.
func (r leaseRows) forgetful() {
	r.Do(func() {
		for _, e := range slices.Clone(r.Enrolls) {
			e.Retire()
		}
		e := r.NewEnroller(fmt.Sprintf("enroll-%d", r.Number()))
		e.Cache = world.Cache{At: 1, Pinned: true}
		r.After(r.budget.Duration, func() { e.Cache.Pinned = false; e.Nudge() })
	})
	r.vanished(func(*world.Child) {})
}

// farewell deletes the Lease. The watches show the deletion, but no later event. So no standby
// learns of the new Lease by a watch. The holder's node crashes, too, so that the holder does not
// acquire the new Lease.
func (r leaseRows) farewell() {
	r.Do(func() { r.API.Weather.Farewell = true })
	r.vanished(func(c *world.Child) { c.Pod().Node.Crash() })
}

// blocked lets a person write a holder that does not exist, and the longest lease duration, into
// the Lease while no standby can read. Later the standbys read the Lease, and the person shortens
// the lease duration.
func (r leaseRows) blocked() {
	hands := &person{workloads: r.workloads}
	c := r.once(func(c *world.Child) {
		c.Pod().Node.Crash()
		r.API.Weather.Gets, r.API.Weather.Watches = apiserver.Forbidden, apiserver.Forbidden
		r.API.Watches.Cut()
		hands.edit(r.slot, func(l *apiserver.Lease) {
			l.Holder, l.DurationSeconds = "ghost_1", int(api.MaxLeaseDuration/time.Second)
		})
	})
	if !r.Pass(world.Slow(api.MaxLeaseDuration / 6)) {
		return
	}
	r.Do(func() { r.API.Weather = apiserver.Fair })
	if !r.Pass(world.Slow(world.Slowest) + time.Second) {
		return
	}
	r.Do(func() {
		hands.edit(r.slot, func(l *apiserver.Lease) { l.DurationSeconds = int(r.budget.Duration / time.Second) })
	})
	bound := world.Slow(r.budget.Duration) + world.Late + world.Quick*time.Duration(len(r.slots))
	if !r.Until(bound, r.free(c)) {
		r.fail(world.Nobody, "nobody holds %v after a person has shortened the Lease", bound)
	}
}

// loseRole removes the label by which the namespace opts in, and deletes the Role. No pod can
// renew until enroll has made the Role again.
func (r leaseRows) loseRole(*world.Child) {
	r.optOut()
	engine.Must(r.API.Remove("somebody", "Role", world.RoleName, "", ""))
}

// unleased removes the label by which the namespace opts in, and deletes the Lease. No pod can
// acquire the slot until enroll has made the Lease again. Enroll must make the Lease even
// without the label, because the pods still have their gates.
func (r leaseRows) unleased() {
	r.Do(r.optOut)
	r.vanished(func(*world.Child) {})
}

// optOut removes the label by which the namespace opts in.
func (r leaseRows) optOut() {
	r.OptedOut = true
	r.Note("script", "namespace is opted out, gate %s", r.templates[0].Gate)
	for _, e := range r.Enrolls {
		e.Nudge()
	}
}
