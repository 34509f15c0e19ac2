// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// newReadWriteModel returns a model of a read-write lock with an intent and three slots. The
// pods claim the lock with different sizes, and change between reading and writing.
func newReadWriteModel(s *script, self func(name string) lease.Self) *model {
	m := &model{script: s, began: time.Now()}
	var names []string
	for i := range 4 {
		l := &modelLease{}
		names = append(names, "slot-"+strconv.Itoa(i))
		m.leases = append(m.leases, l)
		m.store(l, lease.Record{UID: "uid-" + names[i]})
	}
	for i := range 2 + s.choose(2) {
		p := &modelPod{
			model: m, name: string(rune('a' + i)), waiting: true, rate: time.Duration(11 + s.choose(3)), readers: 1 + s.choose(3),
			skew: time.Duration(s.choose(3)-1) * 45 * time.Second, names: names, writes: s.choose(2) == 1, boot: time.Duration(i) * time.Hour,
		}
		p.self = self(p.name)
		m.pods = append(m.pods, p)
		p.start()
	}
	return m
}

// beginReadWrite checks the slots of a new hold. A reader must have one of the slots that the size
// of the pod's claim permits. A writer must have all slots.
func (p *modelPod) beginReadWrite(s State) {
	switch {
	case s.Writes && len(s.Tokens) != len(p.names):
		p.model.violate("%s writes under %v", p.name, s.Tokens)
	case !s.Writes && (len(s.Tokens) != 1 || s.Tokens[0].Slot == p.names[0] || s.Tokens[0].Slot > p.names[p.readers]):
		p.model.violate("%s reads under %v", p.name, s.Tokens)
	}
}

// TestReadersAndWritersKeepInvariantsInRandomSchedules plays random schedules of pods that read and
// write under one lock.
func TestReadersAndWritersKeepInvariantsInRandomSchedules(t *testing.T) {
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(strconv.Itoa(worker), func(t *testing.T) {
			t.Parallel()
			self, random := identities(t), modelRandom(worker+100) //nolint:gosec // a seed
			for range rounds() / workers / 3 {
				judgeModel(t, random.schedule(), newReadWriteModel, self)
			}
		})
	}
}

// readWriteClaim returns a claim of the size 1, for a read-write lock with an intent and two slots.
// The result "looks" has the looks of the claim's first decision, by slot.
func readWriteClaim(t *testing.T, f Facts) (c *claim, looks map[string]Action) {
	t.Helper()
	random := modelRandom(1)
	c = newClaim(Claim{Need: api.Need{Slots: []string{"intent", "0", "1"}, Readers: 1}, Self: self(t, "a", 12*time.Second), OwnProofs: true, Random: &random}, 0)
	actions, _ := next(c, 0, f)
	return c, looksOf(actions)
}

// looksOf returns those actions that are looks, by slot.
func looksOf(actions []Action) map[string]Action {
	looks := map[string]Action{}
	for _, a := range actions {
		if a.Kind == Look {
			looks[a.Slot] = a
		}
	}
	return looks
}

var (
	byReader  = Facts{Wall: time.Now(), Compete: true, Outcomes: map[string]Outcome{}}
	byWriter  = Facts{Wall: time.Now(), Compete: true, Outcomes: map[string]Outcome{}, Writes: true}
	ofAnother = lease.Record{UID: "uid", Version: "7", Holder: "b_u", Hold: "b", Duration: 30 * time.Second}
)

func TestReaderReadsIntentAgainIfWatchIsSilent(t *testing.T) {
	c, looks := readWriteClaim(t, byReader)
	looks["intent"].Read(0, ofAnother)
	looks["0"].Read(0, lease.Record{UID: "uid", Version: "1"})
	// After a third of the lease duration without a renewal, the claim reads the Lease again.
	for at := 10 * time.Second; at < 30*time.Second; at += 10 * time.Second {
		sent, wake := kinds(c, at-time.Second, byReader)
		require.Empty(t, sent)
		require.Equal(t, at, wake, "the watch may be broken")
		only(t, c, at, byReader, Look).Read(at, ofAnother)
	}
	sent, wake := kinds(c, 21*time.Second, byReader)
	require.Empty(t, sent)
	require.Equal(t, 30*time.Second, wake, "the intent may expire")
	actions, _ := next(c, wake, byReader)
	again := looksOf(actions)
	require.Len(t, again, 1, "the writer may have renewed unseen")
	renewed := ofAnother
	renewed.Version = "8"
	again["intent"].Read(wake, renewed)
	sent, _ = kinds(c, wake, byReader)
	require.Empty(t, sent, "the writer lives")
	var acquired []Action
	for at := wake; at < 80*time.Second && len(acquired) == 0; at += time.Second / 2 {
		actions, _ = next(c, at, byReader)
		for _, a := range actions {
			if a.Kind == Acquire {
				acquired = append(acquired, a)
			}
		}
		if look, ok := looksOf(actions)["intent"]; ok && len(acquired) == 0 {
			look.Read(at, renewed)
			acquired, _ = next(c, at, byReader)
		}
	}
	require.Len(t, acquired, 1, "the writer is dead")
	assert.Equal(t, Acquire, acquired[0].Kind)
	assert.Equal(t, "0", acquired[0].Slot)
}

func TestWriterReadsSlotAgainIfWatchIsSilent(t *testing.T) {
	c, looks := readWriteClaim(t, byWriter)
	free := lease.Record{UID: "uid", Version: "1"}
	looks["intent"].Read(0, free)
	looks["0"].Read(0, ofAnother)
	looks["1"].Read(0, free)
	intent := only(t, c, 0, byWriter, Acquire)
	stored := intent.Record
	stored.Version = "2"
	require.NoError(t, c.answered(0, intent, Answer{Record: stored}))
	for at := time.Duration(0); at < 29*time.Second; at += time.Second {
		renewStored(t, c, at, &ofAnother)
	}
	acquire := only(t, c, 30*time.Second, byWriter, Acquire)
	require.Equal(t, "0", acquire.Slot)
	require.Error(t, c.answered(30*time.Second, acquire, Answer{Err: errors.New("old"), Conflict: true}))
	var looked bool
	for at := 30 * time.Second; at < 36*time.Second; at += time.Second {
		looked = renewStored(t, c, at, nil) || looked
	}
	assert.True(t, looked, "the watch is silent, and the writer reads")
	assert.NotNil(t, c.need.slots[0].held, "the writer keeps the intent for the read")
	for at := 36 * time.Second; at < 46*time.Second; at += time.Second {
		renewStored(t, c, at, nil)
	}
	assert.Nil(t, c.need.slots[0].held, "a reader out of view is not waited for")
}

// renewStored lets the claim of a writer decide, and answers its renewals with success. If the
// argument "shown" is not nil, each look reads that record. The result reports whether the claim has
// begun a look.
func renewStored(t *testing.T, c *claim, at time.Duration, shown *lease.Record) (looked bool) {
	t.Helper()
	actions, _ := next(c, at, byWriter)
	for _, a := range actions {
		looked = looked || a.Kind == Look
		if a.Kind == Look && shown != nil {
			a.Read(at, *shown)
		}
		if a.Kind == Renew {
			stored := a.Record
			stored.Version += "0"
			require.NoError(t, c.answered(at, a, Answer{Record: stored}))
		}
	}
	return looked
}

// If the API server refuses watches, the claim sees each Lease only from the read until the refusal
// of the watch.
func TestReaderAcquiresASlotDespiteRefusedWatches(t *testing.T) {
	free := lease.Record{UID: "uid", Version: "1"}
	c, looks := readWriteClaim(t, byReader)
	busy := Answer{Err: assert.AnError}
	looks["intent"].Read(0, ofAnother) // a writer has the intent at first
	looks["intent"].LookEnded(0, "", busy)
	looks["0"].Read(0, free)
	looks["0"].LookEnded(0, "", busy)
	acquired := false
	last := map[string]time.Duration{}
	for at := time.Duration(0); at < time.Hour && !acquired; at += 250 * time.Millisecond {
		actions, _ := next(c, at, byReader)
		for _, a := range actions {
			acquired = acquired || a.Kind == Acquire
			if a.Kind != Look {
				continue
			}
			last[a.Slot] = at
			a.Read(at, free)
			next, _ := next(c, at, byReader)
			for _, n := range next {
				acquired = acquired || n.Kind == Acquire
			}
			a.LookEnded(at, "", busy)
		}
	}
	require.Greater(t, len(last), 1, "each Lease was read")
	assert.True(t, acquired, "the reader has waited for an hour: %v", last)
}
