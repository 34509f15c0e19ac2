// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// unordered is the revision of a pod whose agent or webhook is of a version of Metaparticle without
// turns.
var unordered = api.Revision{}

// up starts a pod with one shim, whose id is the pod's name.
func (w *world) up(name string, change ...func(c *Config)) *pod {
	p := w.start(name, change...)
	p.connect(gate.ShimID(name))
	return p
}

// runs reports whether the pod runs the application.
func (p *pod) runs() bool {
	phase := p.gates.phase(gate.ShimID(p.config.PodName))
	return phase == gate.Running || phase == gate.Draining
}

// remove deletes the pod, and stops its containers as the kubelet does.
func (p *pod) remove() {
	p.delete()
	close(p.stop)
	if p.runs() {
		p.gates.end(gate.ShimID(p.config.PodName))
	}
	p.endsWithin(time.Second)
}

// starts returns the number of the application's starts in all pods.
func (w *world) starts() (count int) {
	for _, p := range w.pods {
		for id := range p.gates.shims {
			count += len(p.gates.shim(id).ran)
		}
	}
	return count
}

// replace rolls out as a Deployment's controller does, and returns the new pods. The function
// makes one new pod at a time, and deletes one old pod once that new pod is Ready.
func (w *world) replace(olds []*pod, news []api.Revision) (pods []*pod) {
	w.t.Helper()
	for i, revision := range news {
		b := w.up(fmt.Sprintf("b%d", i+1), of(revision))
		pods = append(pods, b)
		w.within(2*turn.Rest, b.config.PodName+" is Ready", func() bool { return strings.HasPrefix(b.ready(), "True") })
		olds[i].remove()
		w.pass(time.Second)
	}
	return pods
}

// A pod has no revision if its agent or its webhook is of an earlier version of Metaparticle, or if
// the webhook was rolled back. With such pods a rollout still completes, and so does the next
// rollout. With n old pods, the application starts at most n+1 times until the first rollout is
// complete.
func TestRolloutsCompleteDespitePodsWithoutARevision(t *testing.T) {
	for name, c := range map[string]struct{ olds, news []api.Revision }{
		"no old pod has one":            {[]api.Revision{unordered, unordered, unordered}, []api.Revision{newRevision, newRevision, newRevision}},
		"no new pod has one":            {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{unordered, unordered, unordered}},
		"the first old pod has none":    {[]api.Revision{unordered, oldRevision, oldRevision}, []api.Revision{newRevision, newRevision, newRevision}},
		"the later old pods have none":  {[]api.Revision{oldRevision, unordered, unordered}, []api.Revision{newRevision, newRevision, newRevision}},
		"the first new pod has none":    {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{unordered, newRevision, newRevision}},
		"the second new pod has none":   {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{newRevision, unordered, newRevision}},
		"every second pod has none":     {[]api.Revision{oldRevision, unordered, oldRevision}, []api.Revision{unordered, newRevision, unordered}},
		"all have one":                  {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{newRevision, newRevision, newRevision}},
		"no pod has one":                {[]api.Revision{unordered, unordered, unordered}, []api.Revision{unordered, unordered, unordered}},
		"one replica, the old has none": {[]api.Revision{unordered}, []api.Revision{newRevision}},
		"one replica, the new has none": {[]api.Revision{oldRevision}, []api.Revision{unordered}},
	} {
		for order, sorted := range map[string]bool{"holder first": true, "holder last": false} {
			t.Run(name+", "+order, func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(theSlot, nextLease)
					var olds []*pod
					for i, revision := range c.olds {
						olds = append(olds, w.up(fmt.Sprintf("a%d", i+1), of(revision)))
						w.pass(time.Second)
					}
					require.True(t, olds[0].runs())
					w.pass(turn.Rest)
					if !sorted {
						slices.Reverse(olds)
					}
					news := w.replace(olds, c.news)
					w.within(2*turn.LastResort, "a new pod runs", func() bool {
						return slices.ContainsFunc(news, (*pod).runs)
					})
					w.pass(2 * turn.Rest)
					for _, b := range news {
						assert.True(t, strings.HasPrefix(b.ready(), "True"), "%s: %s %s", b.config.PodName, b.ready(), b.message())
					}
					assert.LessOrEqual(t, w.starts(), len(c.olds)+1, "each deletion of a holder, and a turn")

					next := w.up("c", of(api.Revision{Workload: newRevision.Workload, Number: 8, Hash: "next"}))
					w.within(2*turn.Rest, "the next rollout goes on", func() bool { return strings.HasPrefix(next.ready(), "True") })
				})
			})
		}
	}
}

// An agent of an earlier version of Metaparticle ignores the successor in a release. So such an
// agent may take the slot before the successor does.
func TestRolloutContinuesOnceTheOutdatedAgentIsGone(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		a := w.up("a", of(oldRevision))
		w.pass(turn.Rest + 2*time.Second)
		b := w.up("b", of(newRevision))
		w.within(time.Second, "the turn begins", b.runs)
		b.gates.end("b")
		w.within(time.Second, "the turn is over", func() bool { return w.holder() != b.identity() })
		a.remove()
		o := w.up("o", of(unordered))
		w.within(time.Second, "the older agent holds", o.runs)
		require.NotEmpty(t, w.rollout().Turns, "the older agent leaves the text")
		b.gates.report("b", func(r *gate.Report) { r.Dead = true })
		b.connect("b2")
		w.pass(2 * time.Second)
		assert.Equal(t, "True StandingBy", b.ready(), "the pods take no turns")
		o.remove()
		w.within(2*turn.LastResort, "the new pod runs", func() bool { return b.running("b2") })
		w.within(2*turn.Proof, "the new pod is Ready", func() bool { return b.ready() == "True Holding" })
	})
}

// Before an upgrade of enroll, the slot may have no next Lease. Then no pod can ask, so the new
// pod runs only after the deletion of the old pods.
func TestRolloutCompletesWithoutANextLease(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.up("a", of(oldRevision))
		w.pass(turn.Rest + 2*time.Second)
		b := w.up("b", of(newRevision))
		w.pass(5 * time.Minute)
		assert.Equal(t, "False AsksForItsTurn", b.ready())
		assert.Contains(t, b.message(), "but cannot write that: ")
		assert.True(t, a.runs(), "the old version serves")
		a.remove()
		w.within(2*turn.LastResort, "the new pod runs", b.runs)
		w.within(2*turn.Proof, "the new pod is Ready", func() bool { return b.ready() == "True Holding" })
	})
}
