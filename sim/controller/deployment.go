// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"math"
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// Deployment models the controllers of a Deployment and of its ReplicaSets, by their source in
// Kubernetes 1.37. The field Replicas of a revision is the size of the revision's ReplicaSet.
type Deployment struct {
	*Workload
	// Surge is the number of pods above the replicas, and Unavailable the number of pods below them,
	// that a rolling update allows.
	Surge, Unavailable int
	// Recreate selects the strategy Recreate.
	Recreate bool
	// scaled is the number of replicas for which the Deployment's controller resized its
	// ReplicaSets last.
	scaled int
}

// sync carries out one step, either of the Deployment's controller or of the ReplicaSets'
// controller. So each controller acts on a state that the other controller wrote a while ago.
func (d *Deployment) sync() {
	switch {
	case engine.Chance(d.random, .5):
		for _, r := range d.Revisions {
			d.settle(r)
		}
	case d.scaled != d.Replicas:
		d.resize()
		d.scaled = d.Replicas
	case d.Recreate:
		d.replace()
	default:
		d.roll()
	}
}

// settle makes or deletes pods until the revision's ReplicaSet has as many pods as replicas. Then
// the method counts the available pods.
func (d *Deployment) settle(r *revision) {
	pods := d.of(r)
	for range r.Replicas - len(pods) {
		d.start(r, d.place(), "")
	}
	if surplus := len(pods) - r.Replicas; surplus > 0 {
		slices.Reverse(pods) // the newest pod first
		slices.SortStableFunc(pods, d.cheaper)
		for _, p := range pods[:surplus] {
			p.Shown.Delete()
		}
	}
	r.available = len(slices.DeleteFunc(d.of(r), func(p *world.Pod) bool { return !d.Available(p) }))
}

// cheaper compares two pods for deletion. The result is negative if a ReplicaSet deletes the pod p
// before the pod q.
func (d *Deployment) cheaper(p, q *world.Pod) int {
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
func (d *Deployment) beside(p *world.Pod) int {
	return len(slices.DeleteFunc(d.All(), func(other *world.Pod) bool { return other.Node != p.Node || !other.Shown.IsReady() }))
}

// total returns the sum of the replicas of all ReplicaSets, and the number of available pods.
func (d *Deployment) total() (all, available int) {
	for _, r := range d.Revisions {
		all += r.Replicas
		available += r.available
	}
	return all, available
}

// roll carries out one step of a rolling update.
func (d *Deployment) roll() {
	all, available := d.total()
	n, most := d.Newest, d.Replicas+d.Surge
	switch {
	case n.Replicas > d.Replicas:
		n.Replicas = d.Replicas
		return
	case n.Replicas < d.Replicas && all < most:
		n.Replicas += min(most-all, d.Replicas-n.Replicas)
		return
	}
	least := d.Replicas - d.Unavailable
	down := all - least - (n.Replicas - n.available)
	if down <= 0 {
		return
	}
	d.shrink(down, func(r *revision) int { return r.Replicas - r.available })
	d.shrink(available-least, func(r *revision) int { return r.Replicas })
}

// shrink removes replicas from the old revisions, and begins with the oldest. The argument "down"
// bounds the sum of the removed replicas. The function "most" returns how many replicas a revision
// can lose.
func (d *Deployment) shrink(down int, most func(*revision) int) {
	for _, r := range d.Revisions {
		if r != d.Newest {
			taken := max(0, min(down, most(r)))
			r.Replicas -= taken
			down -= taken
		}
	}
}

// replace carries out one step of a rollout with the strategy Recreate.
func (d *Deployment) replace() {
	for _, r := range d.Revisions {
		if r != d.Newest && r.Replicas > 0 {
			r.Replicas = 0
			return
		}
	}
	if !slices.ContainsFunc(d.All(), func(p *world.Pod) bool { return !d.Updated(p) }) {
		d.Newest.Replicas = d.Replicas
	}
}

// resize distributes a changed number of replicas over the ReplicaSets that are not empty,
// in proportion to their sizes.
func (d *Deployment) resize() {
	active := slices.DeleteFunc(slices.Clone(d.Revisions), func(r *revision) bool { return r.Replicas == 0 })
	switch {
	case len(active) == 0:
		active = append(active, d.Newest)
		fallthrough
	case len(active) == 1:
		active[0].Replicas = d.Replicas
		return
	case d.Recreate:
		return
	}
	all, _ := d.total()
	most, before := d.Replicas+d.Surge, d.scaled+d.Surge
	if d.Replicas == 0 {
		most = 0
	}
	slices.SortStableFunc(active, func(a, b *revision) int { return b.Replicas - a.Replicas })
	left := most - all
	for _, r := range active {
		share := int(math.Round(float64(r.Replicas*most)/float64(max(1, before)))) - r.Replicas
		if left > 0 {
			share = max(0, min(share, left))
		} else {
			share = min(0, max(share, left))
		}
		r.Replicas += share
		left -= share
	}
	active[0].Replicas = max(0, active[0].Replicas+left)
}
