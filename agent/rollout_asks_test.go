// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// staleStart is a client whose watches without a version begin with an old state, as from an API
// server whose watch cache is behind.
type staleStart struct {
	*link
	name string
	old  atomic.Pointer[kube.Lease]
}

func (c *staleStart) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	if old := c.old.Load(); name == c.name && v == "" && old != nil {
		fn(kube.WatchEvent{Type: kube.Added, Lease: old.Clone(), ResourceVersion: old.ResourceVersion})
	}
	return c.link.WatchLease(ctx, name, v, fn)
}

// askFor returns the next Lease with an ask of the given pod.
func askFor(l kube.Lease, pod string) *kube.Lease {
	l.Holder, l.RenewTime, l.Annotations = pod, time.Now(), map[string]string{api.RevisionAnnotation: newRevision.String()}
	return &l
}

// The holder's watch of the next Lease begins anew, with a state from before the hold. That state
// has an ask.
func TestOldAskEndsNoHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		free := w.server.lease(nextLease)
		asked := w.server.put(askFor(free, "b_u"))
		w.server.put(&free)
		var c *staleStart
		a := w.start("a", of(oldRevision), func(cf *Config) { c = &staleStart{link: cf.API.(*link), name: nextLease}; cf.API = c })
		a.connect("s1")
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		w.pass(2 * time.Minute)
		c.old.Store(asked)
		w.pass(6 * time.Minute)
		assert.Empty(t, a.gates.told(), "no pod asks")
		assert.True(t, a.running("s1"))
	})
}

// An asker's clock may run behind, or be set back. After a restore of etcd the versions may be
// smaller than before.
func TestAsksCountDespiteSetClocksAndRestores(t *testing.T) {
	began := time.Now()
	seen := func(a *asks, now time.Duration, version int, pod string, renewed time.Duration, own string) bool {
		l := askFor(kube.Lease{ResourceVersion: strconv.Itoa(version)}, pod)
		l.RenewTime = began.Add(renewed)
		a.see(now, l, own)
		return a.last.Seen == now
	}
	var a asks
	assert.False(t, seen(&a, 1, 10, "b_u", 0, "5"), "the ask may be old")
	assert.True(t, seen(&a, 2, 11, "b_u", -time.Hour, "5"), "the asker's clock was set back")
	assert.True(t, seen(&a, 3, 12, "c_u", -2*time.Hour, "5"), "another asker's clock runs behind")
	assert.False(t, seen(&a, 4, 13, "c_u", -2*time.Hour, "5"), "the asker has written nothing")
	assert.False(t, seen(&a, 5, 11, "b_u", -time.Hour, "13"), "the state is old")
	assert.Equal(t, "c_u", a.last.Identity, "an old state ends no ask")
	assert.False(t, seen(&a, 6, 7, "b_u", time.Second, "6"), "after a restore the first ask may be old")
	assert.True(t, seen(&a, 7, 8, "b_u", 2*time.Second, "6"))
}

// After a rollback to version 0.1.0 the Lease keeps the rollout of the newer agents. During the
// rollback a pod of another revision holds the slot, so the revision in the Lease is outdated. After
// the second upgrade no pod waits for pods of that revision.
func TestRolloutFromBeforeARollbackIsForgotten(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		a := w.up("a", of(oldRevision))
		w.pass(turn.Rest)
		require.Equal(t, oldRevision, w.rollout().Proven)
		a.remove()
		o := w.up("o", of(unordered))
		w.within(time.Second, "the older agent holds", o.runs)
		require.Equal(t, oldRevision, w.rollout().Proven, "the older agent keeps the text")
		b1, b2 := w.up("b1", of(newRevision)), w.up("b2", of(newRevision))
		w.pass(time.Second)
		o.remove()
		w.within(turn.Proof/2, "the new revision runs", func() bool { return b1.runs() || b2.runs() })
		for _, b := range []*pod{b1, b2} {
			w.within(time.Second, b.config.PodName+" is Ready", func() bool { return strings.HasPrefix(b.ready(), "True") })
		}
	})
}

// A person applies an old manifest of the Lease, or edits the number of transitions. A pod of a new
// revision must still wait for its turn.
func TestRolloutSurvivesChangedNumberOfTransitions(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		edited := w.server.lease(theSlot)
		edited.Transitions = 0
		w.server.put(&edited)
		w.pass(10 * time.Second)
		assert.Equal(t, "False WaitsForItsTurn", b.ready(), "its container has not started")
		b.connect("s3")
		w.within(time.Second, "the turn begins", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
	})
}

func TestPodWithoutTurnsEndsRolloutOfItsWorkload(t *testing.T) {
	text := turn.Rollout{Transitions: 5, Proven: oldRevision}.String()
	for name, c := range map[string]struct {
		workload    string
		transitions int
		want        turn.Rollout
	}{
		"its own workload":          {oldRevision.Workload, 5, turn.Rollout{}},
		"another workload":          {"other", 5, turn.Rollout{Transitions: 6, Proven: oldRevision}},
		"an outdated text":          {"other", 6, turn.Rollout{}},
		"an unknown workload":       {"", 5, turn.Rollout{Transitions: 5, Proven: oldRevision}},
		"its own, already outdated": {oldRevision.Workload, 7, turn.Rollout{}},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{}
			config.Readiness, config.Slots = api.ReadinessHolder, []string{theSlot}
			config.Revision = api.Revision{Workload: c.workload, Number: 7, Hash: "new"}
			last := lease.Record{UID: "u", Transitions: c.transitions, Rollout: text}
			got := newRollout(config).text(0, time.Now(), elector.Action{Kind: elector.Acquire, Record: lease.Record{Hold: "hold"}}, last)
			assert.Equal(t, c.want, turn.Parse(got))
		})
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
