// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestConcurrentVariableAdditionsShareAFewWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		var group sync.WaitGroup
		for range 60 {
			group.Go(func() { assert.Empty(t, v.Do(t.Context(), Action{Add: 1}).Refusal) })
		}
		group.Wait()
		assert.EqualValues(t, 60, s.integer())
		assert.LessOrEqual(t, s.count("put"), 4)
		assert.Equal(t, 1, s.count("get"), "no other pod has written")
	})
}

// A new record of a key could replace the result of another pod's add, so the API server refuses such
// a write. The first add of the write drops the key of the second add.
func TestWriteNeverReplacesTheRecordOfAKey(t *testing.T) {
	base := &kube.Variable{Integer: new(int64(7)), Keyed: 2 * oldAfter}
	for n := range api.MaxKeys {
		base.Keys = append(base.Keys, kube.Key{Key: fmt.Sprint("old", n), Add: 1, Result: int64(n), Pod: fmt.Sprint(n), At: int64(n)})
	}
	calls := []*call{{Action: Action{Add: 1, Key: "new"}}, {Action: Action{Add: 1, Key: "old0"}}, {Action: Action{Add: 1}}}
	v, next := New(Config{PodUID: "pod", Random: rand.NewPCG(1, 1)}), base.Clone()
	carried, settled, rest := v.try(calls, base, next)
	assert.Equal(t, []*call{calls[0], calls[2]}, carried)
	assert.Equal(t, calls[1:2], rest, "the key's record is still stored")
	assert.Empty(t, settled)
	_, kept := keptKey(next, "old0")
	assert.False(t, kept)
}

// fault is what happens to the first write. The result reports whether its answer arrives.
type fault func(s *server, next *kube.Variable) (answered bool)

// adds lets another pod carry out the actions.
func adds(s *server, actions ...Action) {
	s.edit(func(v *kube.Variable) {
		for _, a := range actions {
			_, _, _ = a.apply(v, "other", "")
		}
	})
}

func others(s *server) { adds(s, Action{Add: 100}) }

// failingReads lets the next four reads fail.
func failingReads(s *server) {
	reads := 0
	s.get = func() error {
		if reads++; reads < 5 {
			return errAway
		}
		return nil
	}
}

// lost is a write that never arrives, and stored one that arrives without its answer. Then come the
// effects.
func lost(effects ...func(*server)) fault {
	return func(s *server, _ *kube.Variable) bool {
		for _, effect := range effects {
			effect(s)
		}
		return false
	}
}

func stored(effects ...func(*server)) fault {
	return func(s *server, next *kube.Variable) bool {
		s.SetVariable(next)
		return lost(effects...)(s, next)
	}
}

// twice is a write that a proxy sends twice, and late one that arrives just before the second write.
func twice(effects ...func(*server)) fault {
	return func(s *server, next *kube.Variable) bool { return !stored(effects...)(s, next) }
}

func late(effects ...func(*server)) fault {
	return func(s *server, first *kube.Variable) bool {
		first = first.Clone()
		s.put = func(*kube.Variable) (bool, bool) {
			s.put = nil
			stored(effects...)(s, first)
			return true, true
		}
		return false
	}
}

// Each case has a fault of the first write: its answer is lost, it arrives late, or a proxy sends it
// twice. Other pods write, too.
func TestLostAnswersNeverCorruptSumOfVariableAdditions(t *testing.T) {
	for name, test := range map[string]struct {
		first fault
		key   string
		want  Answer
		sum   int64
	}{
		"stored, alone":                    {stored(), "", Answer{Result: 1}, 1},
		"stored, alone, with a key":        {stored(), "k", Answer{Result: 1}, 1},
		"stored, reads fail":               {stored(failingReads), "", Answer{Result: 1}, 1},
		"not stored, alone":                {lost(), "", Answer{Result: 1}, 1},
		"not stored, alone, with a key":    {lost(), "k", Answer{Result: 1}, 1},
		"stored, beside others":            {stored(others), "", Answer{Refusal: Unknown}, 101},
		"stored, with a key, others":       {stored(others), "k", Answer{Result: 1}, 101},
		"not stored, beside others":        {lost(others), "", Answer{Refusal: Unknown}, 100},
		"not stored, with a key, others":   {lost(others), "k", Answer{Result: 101}, 101},
		"not stored, added by another pod": {lost(func(s *server) { adds(s, Action{Add: 100}, Action{Add: 1, Key: "k"}) }), "k", Answer{Result: 101}, 101},
		"twice":                            {twice(), "", Answer{Result: 1}, 1},
		"twice, with a key, others":        {twice(others), "k", Answer{Result: 1}, 101},
		"late":                             {late(), "", Answer{Result: 1}, 1},
		"late, beside others":              {late(others), "", Answer{Refusal: Unknown}, 101},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
				s.put = func(next *kube.Variable) (bool, bool) {
					s.put = nil
					answered := test.first(s, next)
					return answered, answered
				}
				action := Action{Add: 1, Key: test.key}
				assert.Equal(t, test.want, v.Do(t.Context(), action))
				assert.Equal(t, test.sum, s.integer())
				if test.key != "" {
					assert.Equal(t, test.want, v.Do(t.Context(), action), "the first result")
					assert.Equal(t, test.sum, s.integer())
				}
			})
		})
	}
}

// carriedTogether sends two actions such that one write carries out both.
func carriedTogether(ctx context.Context, v *Variable, first, second Action, cancelled context.Context) (one, two <-chan Answer) {
	answers := []chan Answer{make(chan Answer, 1), make(chan Answer, 1)}
	busy := make(chan struct{})
	go func() {
		close(busy)
		v.Do(ctx, Action{Add: 100})
	}()
	<-busy
	<-time.After(time.Millisecond / 2) // the loop is busy with the first add
	go func() { answers[0] <- v.Do(ctx, first) }()
	<-time.After(time.Microsecond)
	go func() { answers[1] <- v.Do(cancelled, second) }()
	return answers[0], answers[1]
}

// A single write carries out both calls. If the API server does not store that write,
// neither call succeeds.
func TestVariableCallSucceedsOnlyAfterWriteIsStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		puts := 0
		s.put = func(*kube.Variable) (bool, bool) {
			puts++
			return puts == 1, puts == 1
		}
		s.get = func() error {
			if puts > 1 {
				return errAway
			}
			return nil
		}
		a := Action{Add: 5, Key: "k"}
		one, two := carriedTogether(t.Context(), v, a, a, t.Context())
		assert.NotEmpty(t, (<-one).Refusal, "nothing is stored")
		assert.NotEmpty(t, (<-two).Refusal, "nothing is stored")
		assert.EqualValues(t, 100, s.integer())
		s.Lock()
		s.put, s.get = nil, nil
		s.Unlock()
		one, two = carriedTogether(t.Context(), v, a, a, t.Context())
		assert.Equal(t, <-one, <-two)
		assert.EqualValues(t, 205, s.integer())
	})
}

// A single write carries out two calls. The program of the second call disconnects while the outcome
// of that write is unknown.
func TestDisconnectedProgramNeverHarmsCallsOfOtherPrograms(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		puts := 0
		s.put = func(*kube.Variable) (bool, bool) {
			puts++
			return puts == 1 || puts > 12, puts == 1 || puts > 12
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		one, two := carriedTogether(t.Context(), v, Action{Add: 1, Key: "k"}, Action{Add: 1000, Key: "l"}, ctx)
		assert.Equal(t, Unknown, (<-two).Refusal)
		s.edit(func(v *kube.Variable) { *v.Integer += 10000 })
		assert.Empty(t, (<-one).Refusal)
		assert.EqualValues(t, 10101, s.integer())
	})
}

func TestVariableCallReturnsUnknownOrUnavailableDuringOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		require.Empty(t, v.Do(t.Context(), Action{Add: 1}).Refusal)
		s.Lock()
		s.put = func(*kube.Variable) (bool, bool) { return false, false }
		s.get = func() error { return errAway }
		s.Unlock()
		began := time.Now()
		assert.Equal(t, Unknown, v.Do(t.Context(), Action{Add: 1}).Refusal, "a write was sent")
		assert.LessOrEqual(t, time.Since(began), patience+requestTimeout+time.Second)
		assert.Equal(t, Unavailable, v.Do(t.Context(), Action{Add: 1}).Refusal, "no write was sent")
		assert.Equal(t, Unavailable, v.Get(t.Context()).Refusal)
		requests := s.count("get")
		s.Lock()
		s.put, s.get = nil, nil
		s.Unlock()
		assert.Less(t, requests, 100, "an outage causes few requests")
		assert.Empty(t, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.EqualValues(t, 2, s.integer())
		s.remove()
		assert.Equal(t, Absent, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.Equal(t, Absent, v.Get(t.Context()).Refusal)
	})
}

// The hold ends between two attempts, so the agent must not send the second attempt.
func TestLostHoldStopsFurtherAttemptsOfVariableWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		asked := 0
		fence := func() (kube.Fence, Refusal) {
			if asked++; asked > 1 {
				return kube.Fence{}, LostHold
			}
			return kube.Fence{Lock: "lock.a", Epoch: 1, Token: 10}, ""
		}
		s.put = func(*kube.Variable) (bool, bool) {
			s.put = nil
			other := s.of()
			other.Fence = &kube.Fence{Lock: "lock.a", Epoch: 1, Token: 20}
			s.SetVariable(other)
			return true, true
		}
		assert.Equal(t, LostHold, v.Do(t.Context(), Action{Text: new("x"), Fence: fence}).Refusal)
		assert.Nil(t, s.of().Value)
		assert.EqualValues(t, 20, s.of().Fence.Token)
		assert.Equal(t, Fenced, v.Do(t.Context(), Action{Text: new("x"), Fence: under("lock.a", 1, 10)}).Refusal)
		assert.Equal(t, Fenced, v.Do(t.Context(), Action{Text: new("x")}).Refusal)
	})
}

func TestVariableWriteReturnsTheVersionThatItStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		first := v.Do(t.Context(), Action{Text: new("a"), Fresh: true})
		require.Empty(t, first.Refusal)
		assert.Equal(t, Mismatch, v.Do(t.Context(), Action{Text: new("b"), Fresh: true}).Refusal)
		second := v.Do(t.Context(), Action{Text: new("b"), Match: first.State.ResourceVersion})
		require.Empty(t, second.Refusal)
		s.edit(func(v *kube.Variable) { v.Value = new("theirs") })
		assert.Equal(t, Mismatch, v.Do(t.Context(), Action{Text: new("c"), Match: second.State.ResourceVersion}).Refusal)
		assert.Equal(t, "theirs", *v.Get(t.Context()).State.Value)
	})
}

func TestVariableRefusesTooManyConcurrentCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		var group sync.WaitGroup
		var mu sync.Mutex
		refusals := map[Refusal]int{}
		for range mostCalls + 10 {
			group.Go(func() {
				refusal := v.Do(t.Context(), Action{Add: 1}).Refusal
				mu.Lock()
				defer mu.Unlock()
				refusals[refusal]++
			})
		}
		group.Wait()
		assert.Equal(t, map[Refusal]int{"": mostCalls, TooMany: 10}, refusals)
		assert.EqualValues(t, mostCalls, s.integer())
	})
}

func TestConcurrentReadsOfAVariableShareRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { assert.Empty(t, v.Get(t.Context()).Refusal) })
		}
		group.Wait()
		assert.LessOrEqual(t, s.count("get"), 2)
	})
}

func TestVariableCallsAreRefusedWhileTheAgentStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := New(Config{Name: "hits", Requests: s.Client("p"), PodUID: "p", Process: "p", Random: rand.NewPCG(1, 1)})
		stop := make(chan struct{})
		close(stop)
		v.Run(t.Context(), stop)
		assert.Equal(t, Stopping, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.Equal(t, Stopping, v.Follow(t.Context(), s.of(), func(*kube.Variable) bool { return true }))
	})
}
