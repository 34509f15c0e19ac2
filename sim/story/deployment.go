// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"cmp"
	"math"
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// deployment models the controllers of a Deployment and of its ReplicaSets, by their source in
// Kubernetes 1.37. The field "replicas" of a revision is the size of the revision's ReplicaSet.
type deployment struct {
	*workload
	surge, unavailable int
	// recreate selects the strategy Recreate.
	recreate bool
	// scaled is the number of replicas for which the Deployment's controller resized its
	// ReplicaSets last.
	scaled int
}

// sync carries out one step, either of the Deployment's controller or of the ReplicaSets'
// controller. So each controller acts on a state that the other controller wrote a while ago.
func (d *deployment) sync() {
	switch {
	case engine.Chance(d.random, .5):
		for _, r := range d.revisions {
			d.settle(r)
		}
	case d.scaled != d.replicas:
		d.resize()
		d.scaled = d.replicas
	case d.recreate:
		d.replace()
	default:
		d.roll()
	}
}

// settle makes or deletes pods until the revision's ReplicaSet has as many pods as replicas. Then
// settle counts the available pods.
func (d *deployment) settle(r *revision) {
	pods := d.of(r)
	for range r.replicas - len(pods) {
		d.start(r, d.place(), "")
	}
	if surplus := len(pods) - r.replicas; surplus > 0 {
		slices.Reverse(pods) // the newest pod first
		slices.SortStableFunc(pods, d.cheaper)
		for _, p := range pods[:surplus] {
			p.Shown.Delete()
		}
	}
	r.available = len(slices.DeleteFunc(d.of(r), func(p *world.Pod) bool { return !d.available(p) }))
}

// cheaper compares two pods for deletion. The result is negative if a ReplicaSet deletes the pod p
// before the pod q.
func (d *deployment) cheaper(p, q *world.Pod) int {
	return cmp.Or(
		less(q.Shown.IsPending(), p.Shown.IsPending()),
		less(p.Shown.IsReady(), q.Shown.IsReady()),
		cmp.Compare(p.Shown.Cost, q.Shown.Cost),
		cmp.Compare(d.beside(q), d.beside(p)),
		cmp.Compare(d.since[q], d.since[p]),
		cmp.Compare(q.Shown.Restarts(), p.Shown.Restarts()),
	)
}

// less compares two truth values, and orders false before true.
func less(p, q bool) int {
	switch {
	case p == q:
		return 0
	case q:
		return -1
	}
	return 1
}

// beside returns how many Ready pods of the workload run on the pod's node.
func (d *deployment) beside(p *world.Pod) int {
	return len(slices.DeleteFunc(d.all(), func(other *world.Pod) bool { return other.Node != p.Node || !other.Shown.IsReady() }))
}

// total returns the sum of the replicas of all ReplicaSets, and the number of available pods.
func (d *deployment) total() (all, available int) {
	for _, r := range d.revisions {
		all += r.replicas
		available += r.available
	}
	return all, available
}

// roll carries out one step of a rolling update.
func (d *deployment) roll() {
	all, available := d.total()
	n, most := d.newest, d.replicas+d.surge
	switch {
	case n.replicas > d.replicas:
		n.replicas = d.replicas
		return
	case n.replicas < d.replicas && all < most:
		n.replicas += min(most-all, d.replicas-n.replicas)
		return
	}
	least := d.replicas - d.unavailable
	down := all - least - (n.replicas - n.available)
	if down <= 0 {
		return
	}
	d.shrink(down, func(r *revision) int { return r.replicas - r.available })
	d.shrink(available-least, func(r *revision) int { return r.replicas })
}

// shrink removes replicas from the old revisions, and begins with the oldest. The argument "down"
// bounds the sum of the removed replicas. The function "most" returns how many replicas a revision
// can lose.
func (d *deployment) shrink(down int, most func(*revision) int) {
	for _, r := range d.revisions {
		if r != d.newest {
			taken := max(0, min(down, most(r)))
			r.replicas -= taken
			down -= taken
		}
	}
}

// replace carries out one step of a rollout with the strategy Recreate.
func (d *deployment) replace() {
	for _, r := range d.revisions {
		if r != d.newest && r.replicas > 0 {
			r.replicas = 0
			return
		}
	}
	if !slices.ContainsFunc(d.all(), func(p *world.Pod) bool { return !d.updated(p) }) {
		d.newest.replicas = d.replicas
	}
}

// resize distributes a changed number of replicas over the ReplicaSets that are not empty,
// in proportion to their sizes.
func (d *deployment) resize() {
	active := slices.DeleteFunc(slices.Clone(d.revisions), func(r *revision) bool { return r.replicas == 0 })
	switch {
	case len(active) == 0:
		active = append(active, d.newest)
		fallthrough
	case len(active) == 1:
		active[0].replicas = d.replicas
		return
	case d.recreate:
		return
	}
	all, _ := d.total()
	most, before := d.replicas+d.surge, d.scaled+d.surge
	if d.replicas == 0 {
		most = 0
	}
	slices.SortStableFunc(active, func(a, b *revision) int { return b.replicas - a.replicas })
	left := most - all
	for _, r := range active {
		share := int(math.Round(float64(r.replicas*most)/float64(max(1, before)))) - r.replicas
		if left > 0 {
			share = max(0, min(share, left))
		} else {
			share = min(0, max(share, left))
		}
		r.replicas += share
		left -= share
	}
	active[0].replicas = max(0, active[0].replicas+left)
}
