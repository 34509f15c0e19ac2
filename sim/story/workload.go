// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// workload is a workload with a controller, which makes its pods from revisions.
type workload struct {
	*world.World
	random *rand.Rand
	// template has the fields that the pods of all revisions share. Each revision adds
	// its own version of the application.
	template world.Template
	uid      string
	replicas int
	// minReady is the time for which a pod has to be Ready before it is available.
	minReady time.Duration
	// revisions has all revisions, in the order of their creation. The field "newest" is the
	// revision that a person applied last.
	revisions []*revision
	newest    *revision
	// since has, for each Ready pod, the instant since which the pod is Ready.
	since map[*world.Pod]time.Duration
}

// revision is a pod template of a workload.
type revision struct {
	stamp     api.Revision
	behaviour world.Behaviour
	// replicas is the size of the revision's ReplicaSet. The field "available" is the number of
	// available pods in the status of the ReplicaSet.
	replicas, available int
	// applied is the instant at which a person applied the template last.
	applied time.Duration
}

// controller makes and deletes the pods of a workload.
type controller interface {
	// sync carries out one step.
	sync()
}

// newWorkload makes a workload without a revision.
func newWorkload(w *world.World, t world.Template, replicas int) *workload {
	l := &workload{World: w, random: w.Source("workload " + t.Workload), template: t, replicas: replicas, since: map[*world.Pod]time.Duration{}}
	l.create()
	return l
}

// create gives the workload another uid, as if a person had deleted the workload and made
// it anew.
func (l *workload) create() {
	l.uid, l.revisions, l.newest = fmt.Sprintf("uid-%d", l.Number()), nil, nil
}

// apply applies a template that was never applied before.
func (l *workload) apply(b world.Behaviour) {
	r := &revision{behaviour: b, stamp: api.Revision{Workload: l.uid, Hash: fmt.Sprintf("hash-%d", l.Number())}}
	l.revisions = append(l.revisions, r)
	l.again(r)
}

// again applies the template of a revision that exists. The revision gets a new highest
// number, unless it is the newest revision already.
func (l *workload) again(r *revision) {
	if r != l.newest {
		highest := int64(0)
		for _, other := range l.revisions {
			highest = max(highest, other.stamp.Number)
		}
		r.stamp.Number, r.applied = highest+1, l.Now()
	}
	l.newest = r
	l.Note("a person", "applies revision %d of %s (%s): %s", r.stamp.Number, l.template.Workload, r.stamp.Hash, r.behaviour.Name)
}

// scale changes the number of replicas.
func (l *workload) scale(replicas int) {
	l.replicas = replicas
	l.Note("a person", "scales %s to %d", l.template.Workload, replicas)
}

// remove deletes the workload, and makes it anew with another uid. The garbage collector
// deletes the old pods a little later.
func (l *workload) remove() {
	l.Note("a person", "deletes %s", l.template.Workload)
	for _, p := range l.all() {
		l.After(engine.Between(l.random, time.Millisecond, 2*time.Second), p.Shown.Delete)
	}
	l.create()
}

// start makes a pod of the revision. If the name is empty, the pod gets a new name.
func (l *workload) start(r *revision, n *world.Node, name string) {
	t := l.template
	t.Revision, t.Behaviour, t.Stable = r.stamp, r.behaviour, name
	l.NewPod(t, n)
}

// place returns the node on which a scheduler places a pod.
func (l *workload) place() *world.Node {
	return slices.MinFunc(l.Nodes, func(a, b *world.Node) int {
		weight := func(n *world.Node) int {
			if !n.Up || n.CutIn || n.CutOut {
				return 100
			}
			return len(n.Pods())
		}
		return weight(a) - weight(b)
	})
}

// all returns the pods of the workload that the API server has, also those that are being deleted.
func (l *workload) all() []*world.Pod {
	return slices.DeleteFunc(slices.Clone(l.Pods), func(p *world.Pod) bool { return !p.Object || p.Revision.Workload != l.uid })
}

// of returns the revision's pods, except those that are being deleted.
func (l *workload) of(r *revision) []*world.Pod {
	return slices.DeleteFunc(l.all(), func(p *world.Pod) bool { return !p.Shown.Stays() || p.Revision.Hash != r.stamp.Hash })
}

// updated reports whether the pod is of the newest revision.
func (l *workload) updated(p *world.Pod) bool { return p.Revision.Same(l.newest.stamp) }

// mostIdle bounds the time between two steps of a controller.
const mostIdle = 300 * time.Millisecond

// steer lets the controller work until the world ends.
func (l *workload) steer(by controller) {
	l.After(engine.Between(l.random, 10*time.Millisecond, mostIdle), func() {
		if l.newest != nil && !l.API.Away {
			l.observe()
			by.sync()
		}
		l.steer(by)
	})
}

// observe notes, for each Ready pod, the instant since which the pod is Ready.
func (l *workload) observe() {
	for _, p := range l.all() {
		since, known := l.since[p]
		if !known {
			since = l.Now()
		}
		delete(l.since, p)
		if p.Shown.IsReady() {
			l.since[p] = since
		}
	}
}

// available reports whether the pod was Ready for long enough.
func (l *workload) available(p *world.Pod) bool {
	since, ready := l.since[p]
	return ready && p.Shown.Stays() && l.Now()-since >= l.minReady
}

// complete reports whether the rollout has ended: all pods are of the newest revision, and
// available.
func (l *workload) complete() bool {
	done := func(p *world.Pod) bool { return l.updated(p) && l.available(p) }
	return len(l.all()) == l.replicas && !slices.ContainsFunc(l.all(), func(p *world.Pod) bool { return !done(p) })
}
