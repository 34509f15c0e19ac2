// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// Workload is a workload whose controller makes pods from revisions.
type Workload struct {
	*world.World
	random *rand.Rand
	// Template has the fields that the pods of all revisions share. Each revision adds
	// its own version of the application.
	Template world.Template
	// UID is the uid of the controller's object, and Replicas the number of pods that a person wants.
	UID      string
	Replicas int
	// MinReady is the time for which a pod has to be Ready before it is available.
	MinReady time.Duration
	// Revisions has all revisions, in the order of their creation. The field Newest is the
	// revision that a person applied last.
	Revisions []*revision
	Newest    *revision
	// since has, for each Ready pod, the instant since which the pod is Ready.
	since map[*world.Pod]time.Duration
}

// revision is a pod template of a workload.
type revision struct {
	// Stamp is the api.Revision that the pods of this revision have. The field Behaviour describes
	// the version of the application.
	Stamp     api.Revision
	Behaviour world.Behaviour
	// Replicas is the number of pods that the revision's ReplicaSet is to have. The field
	// "available" is the number of available pods in the status of the ReplicaSet.
	Replicas, available int
	// Applied is the instant at which a person applied the template last.
	Applied time.Duration
}

// Controller makes and deletes the pods of a workload.
type Controller interface {
	// sync carries out one step.
	sync()
}

// New makes a workload without a revision.
func New(w *world.World, t world.Template, replicas int) *Workload {
	l := &Workload{World: w, random: w.Source("workload " + t.Workload), Template: t, Replicas: replicas, since: map[*world.Pod]time.Duration{}}
	l.create()
	return l
}

// create gives the workload another uid, as if a person had deleted the workload and made
// it anew.
func (l *Workload) create() {
	l.UID, l.Revisions, l.Newest = fmt.Sprintf("uid-%d", l.Number()), nil, nil
}

// Apply applies a template that was never applied before.
func (l *Workload) Apply(b world.Behaviour) {
	r := &revision{Behaviour: b, Stamp: api.Revision{Workload: l.UID, Hash: fmt.Sprintf("hash-%d", l.Number())}}
	l.Revisions = append(l.Revisions, r)
	l.Again(r)
}

// Again applies the template of a revision that exists. The revision gets a new highest
// number, unless the revision is the newest already.
func (l *Workload) Again(r *revision) {
	if r != l.Newest {
		highest := int64(0)
		for _, other := range l.Revisions {
			highest = max(highest, other.Stamp.Number)
		}
		r.Stamp.Number, r.Applied = highest+1, l.Now()
	}
	l.Newest = r
	l.Note("a person", "applies revision %d of %s (%s): %s", r.Stamp.Number, l.Template.Workload, r.Stamp.Hash, r.Behaviour.Name)
}

// Scale changes the number of replicas.
func (l *Workload) Scale(replicas int) {
	l.Replicas = replicas
	l.Note("a person", "scales %s to %d", l.Template.Workload, replicas)
}

// Remove deletes the workload, and makes it anew with another uid. The garbage collector
// deletes the old pods a little later.
func (l *Workload) Remove() {
	l.Note("a person", "deletes %s", l.Template.Workload)
	for _, p := range l.All() {
		l.After(engine.Between(l.random, time.Millisecond, 2*time.Second), p.Shown.Delete)
	}
	l.create()
}

// start makes a pod of the revision. If the name is empty, the pod gets a new name.
func (l *Workload) start(r *revision, n *world.Node, name string) {
	t := l.Template
	t.Revision, t.Behaviour, t.Stable = r.Stamp, r.Behaviour, name
	l.NewPod(t, n)
}

// place returns the node on which a scheduler places a pod.
func (l *Workload) place() *world.Node {
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

// All returns the pods of the workload that the API server has, also those that are being deleted.
func (l *Workload) All() []*world.Pod {
	return slices.DeleteFunc(slices.Clone(l.Pods), func(p *world.Pod) bool { return !p.Object || p.Revision.Workload != l.UID })
}

// of returns the revision's pods, except those that are being deleted.
func (l *Workload) of(r *revision) []*world.Pod {
	return slices.DeleteFunc(l.All(), func(p *world.Pod) bool { return !p.Shown.Stays() || p.Revision.Hash != r.Stamp.Hash })
}

// Updated reports whether the pod is of the newest revision.
func (l *Workload) Updated(p *world.Pod) bool { return p.Revision.Same(l.Newest.Stamp) }

// MostIdle bounds the time between two steps of a controller.
const MostIdle = 300 * time.Millisecond

// Steer lets the controller work until the world ends.
func (l *Workload) Steer(by Controller) {
	l.After(engine.Between(l.random, 10*time.Millisecond, MostIdle), func() {
		if l.Newest != nil && !l.API.Away {
			l.observe()
			by.sync()
		}
		l.Steer(by)
	})
}

// observe notes, for each Ready pod, the instant since which the pod is Ready.
func (l *Workload) observe() {
	for _, p := range l.All() {
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

// Available reports whether the pod has been Ready for the time MinReady, and is not being
// deleted.
func (l *Workload) Available(p *world.Pod) bool {
	since, ready := l.since[p]
	return ready && p.Shown.Stays() && l.Now()-since >= l.MinReady
}

// Complete reports whether the rollout has ended: all pods are of the newest revision, and
// available.
func (l *Workload) Complete() bool {
	done := func(p *world.Pod) bool { return l.Updated(p) && l.Available(p) }
	return len(l.All()) == l.Replicas && !slices.ContainsFunc(l.All(), func(p *world.Pod) bool { return !done(p) })
}
