// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

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
			write := newRollout(config).text(0, time.Now())
			got := write(claim.Acquire, lease.Record{UID: "u", Transitions: c.transitions, Rollout: text}, "hold")
			assert.Equal(t, c.want, turn.Parse(got))
		})
	}
}
