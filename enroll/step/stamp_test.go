// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// leases returns Leases with the given stamps, from shard 0 on. A Lease whose text ends in "!"
// is held. A Lease whose text ends in "?" is held, too, but has expired.
func leases(texts ...string) []Shard {
	var all []Shard
	for i, text := range texts {
		s := Shard{Number: i}
		if n := len(text); n > 0 && (text[n-1] == '!' || text[n-1] == '?') {
			s.Held, s.Expired, text = true, text[n-1] == '?', text[:n-1]
		}
		s.Stamp = api.ParseStamp(text)
		all = append(all, s)
	}
	return all
}

func TestNewShardCountWaitsUntilShardsAreFree(t *testing.T) {
	closed, open := api.Stamp{Epoch: 2, Count: 3, Closed: true}, api.Stamp{Epoch: 2, Count: 3}
	for name, test := range map[string]struct {
		shards []Shard
		absent bool
		want   []Action
	}{
		"no Lease":                     {nil, false, nil},
		"no shard 0":                   {leases("", "")[1:], false, nil},
		"new":                          {leases("", "", ""), false, []Action{{Stamp: api.Stamp{Epoch: 1, Count: 3, Closed: true}}}},
		"another number":               {leases("1/2!", "1/2!"), false, []Action{{Stamp: closed}}},
		"the decision is recreated":    {leases("", "1/3!", "1/3"), false, []Action{{Stamp: closed}}},
		"decided":                      {leases("2/3 closed!", "1/2!", ""), false, []Action{{Number: 1, Stamp: closed}, {Number: 2, Stamp: closed}}},
		"a Lease beyond the number":    {leases("2/3 closed", "2/3 closed", "2/3 closed", "1/4!"), false, []Action{{Number: 3, Stamp: closed}}},
		"one is held":                  {leases("2/3 closed", "2/3 closed!", "2/3 closed"), false, nil},
		"one has expired":              {leases("2/3 closed", "2/3 closed?", "2/3 closed"), false, []Action{{Number: 1, Stamp: closed, Free: true}}},
		"one is absent":                {leases("2/3 closed", "2/3 closed", "2/3 closed"), true, nil},
		"all are free":                 {leases("2/3 closed", "2/3 closed", "2/3 closed", "2/3 closed"), false, []Action{{Number: 0, Stamp: open}, {Number: 1, Stamp: open}, {Number: 2, Stamp: open}}},
		"one is open already":          {leases("2/3!", "2/3 closed", "2/3 closed"), false, []Action{{Number: 1, Stamp: open}, {Number: 2, Stamp: open}}},
		"one is recreated":             {leases("2/3!", "!", "2/3"), false, []Action{{Number: 1, Stamp: closed}}},
		"in order":                     {leases("2/3!", "2/3", "2/3!", "2/3 closed"), false, nil},
		"another number, in the epoch": {leases("2/3 closed", "2/5 closed", "2/3 closed"), false, []Action{{Number: 1, Stamp: closed}}},
	} {
		assert.Equal(t, test.want, Next(test.shards, 3, "", test.absent), name)
	}
}

func TestNewRunWaitsUntilAllShardsAreFree(t *testing.T) {
	closed, open := api.Stamp{Epoch: 2, Count: 2, Run: "b", Closed: true}, api.Stamp{Epoch: 2, Count: 2, Run: "b"}
	for name, test := range map[string]struct {
		shards []Shard
		want   []Action
	}{
		"another run":              {leases("1/2/a!", "1/2/a"), []Action{{Stamp: closed}}},
		"pods that kept running":   {leases("1/2", "1/2!"), []Action{{Stamp: closed}}},
		"decided":                  {leases("2/2/b closed", "1/2/a!"), []Action{{Number: 1, Stamp: closed}}},
		"another run in the epoch": {leases("2/2/b closed", "2/2/a"), []Action{{Number: 1, Stamp: closed}}},
		"one is held":              {leases("2/2/b closed", "2/2/b closed!"), nil},
		"all are free":             {leases("2/2/b closed", "2/2/b closed"), []Action{{Stamp: open}, {Number: 1, Stamp: open}}},
		"in order":                 {leases("2/2/b!", "2/2/b"), nil},
	} {
		assert.Equal(t, test.want, Next(test.shards, 2, "b", false), name)
		assert.Equal(t, name == "in order", InOrder(test.shards, 2, "b"), name)
	}
}

func TestCorrectlyStampedLeasesAreNotWritten(t *testing.T) {
	for _, test := range []struct {
		shards []Shard
		want   bool
	}{
		{leases("2/3!", "2/3", "2/3!"), true}, {leases("2/3!", "2/3", "2/3!", "2/3 closed", ""), true},
		{leases("2/3!", "2/3"), false}, {leases("2/3!", "2/3", "2/3", "2/3"), false}, {leases("2/3!", "1/3", "2/3"), false},
		{leases("2/3!", "2/3", "2/3 closed"), false}, {leases("2/2!", "2/2"), false}, {nil, false},
	} {
		assert.Equal(t, test.want, InOrder(test.shards, 3, ""), test.shards)
		if test.want {
			assert.Empty(t, Next(slices.DeleteFunc(test.shards, func(s Shard) bool { return s.Stamp == (api.Stamp{}) }), 3, "", false))
		}
	}
}

// writer is a process of enroll that reads one list, and then stores the writes for that list one
// by one. Other processes and agents may write between two of these writes.
type writer struct {
	count  int
	run    string
	orders []Action
	at     []int
}

// FuzzPodsWithDifferentShardCountsNeverHoldConcurrently runs random schedules of three processes that want
// random numbers of shards and random runs. Agents acquire open Leases, and release closed Leases.
func FuzzPodsWithDifferentShardCountsNeverHoldConcurrently(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		shards, versions, held := leases("", "", "", ""), make([]int, 4), make([]api.Stamp, 4)
		writers := []*writer{{count: 2, run: "a"}, {count: 2, run: "b"}, {count: 3}}
		for range 400 {
			w := writers[r.IntN(len(writers))]
			switch i := r.IntN(4); r.IntN(6) {
			case 0, 1: // the process lists the Leases
				for j := range shards {
					shards[j].Held = held[j].Count > 0
				}
				w.orders, w.at = Next(shards, w.count, w.run, false), slices.Clone(versions)
			case 2, 3: // the process tries to store its next stamp
				if len(w.orders) == 0 {
					continue
				}
				o := w.orders[0]
				w.orders = w.orders[1:]
				if w.at[o.Number] == versions[o.Number] {
					shards[o.Number].Stamp = o.Stamp
					versions[o.Number]++
				}
			case 4: // an agent acquires
				if s := shards[i].Stamp; s.Admits(s.Count, s.Run) && held[i].Count == 0 {
					held[i] = api.Stamp{Count: s.Count, Run: s.Run}
					versions[i]++
				}
			default: // an agent releases
				if held[i].Count > 0 && !shards[i].Stamp.Admits(held[i].Count, held[i].Run) {
					held[i] = api.Stamp{}
					versions[i]++
				}
			}
			holds := map[api.Stamp]bool{}
			for _, of := range held {
				holds[of] = holds[of] || of.Count > 0
			}
			delete(holds, api.Stamp{})
			require.LessOrEqual(t, len(holds), 1, "pods of two numbers, or of two runs, hold: %v under %v", held, shards)
			if chance := r.IntN(50); chance == 0 {
				w.count, w.run = 1+r.IntN(4), []string{"", "a", "b"}[r.IntN(3)]
			}
		}
		for range 20 {
			for j := range shards {
				if !shards[j].Stamp.Admits(held[j].Count, held[j].Run) {
					held[j] = api.Stamp{}
				}
				shards[j].Held = held[j].Count > 0
			}
			for _, o := range Next(shards, 3, "b", false) {
				shards[o.Number].Stamp = o.Stamp
			}
		}
		assert.True(t, InOrder(shards, 3, "b"), "alone, a process opens all: %v", shards)
	})
}
