// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

var errAway = errors.New("connection refused")

// server is the API server with one Variable. Each request takes a millisecond.
type variableServer struct {
	*apiserver.Scripted
	// put, if not nil, decides whether a write takes effect, and whether its answer arrives.
	put func(v *kube.Variable) (stored, answered bool)
	// denied, if not nil, is the error of each write.
	denied error
	// get, if not nil, returns the error of a read.
	get func() error
	// mute, if not nil, is the error with which each watch ends at once.
	mute error
}

func newVariableServer(t *testing.T) *variableServer {
	s := &variableServer{Scripted: apiserver.NewScripted(t.Context())}
	s.Takes = time.Millisecond
	s.SetVariable(&kube.Variable{Name: "hits", UID: "u"})
	unanswered := false
	s.Refuse = func(_ context.Context, r apiserver.Request) error {
		s.Lock()
		put, get, mute := s.put, s.get, s.mute
		s.Unlock()
		switch {
		case r.Verb == "watch":
			return mute
		case r.Verb == "get" && get != nil:
			return get()
		case r.Verb == "put" && s.denied != nil:
			return s.denied
		case r.Verb == "put" && put != nil:
			stored, answered := put(r.Variable)
			if unanswered = !answered; !stored {
				return errAway
			}
		}
		return nil
	}
	s.Answer = func(r apiserver.Request, err error) error {
		if r.Verb == "put" && unanswered {
			unanswered = false
			return errAway
		}
		return err
	}
	return s
}

// of returns the Variable.
func (s *variableServer) of() *kube.Variable { return s.Variable("hits") }

// edit changes the Variable, as another pod's write does.
func (s *variableServer) edit(change func(v *kube.Variable)) {
	next := s.of()
	next.Write = "other." + next.ResourceVersion
	change(next)
	s.SetVariable(next)
}

// integer returns the integer that the server has.
func (s *variableServer) integer() int64 {
	if n := s.of().Integer; n != nil {
		return *n
	}
	return 0
}

// count returns the number of requests with the verb.
func (s *variableServer) count(verb string) int { return len(s.Requests(verb)) }

// remove deletes the Variable.
func (s *variableServer) remove() { s.DeleteVariable("hits") }

// start makes the Variable of the pod's agent, and runs that Variable until the test ends.
func startVariable(t *testing.T, s *variableServer, pod string) *Variable {
	t.Helper()
	v := newVariable(variableConfig{
		Name: "hits", Requests: s.Client(pod), PodUID: pod, Process: "p", Random: rand.NewPCG(1, uint64(len(pod))), Log: slog.New(slog.DiscardHandler),
	})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx, nil)
	}()
	t.Cleanup(func() {
		end()
		<-done
	})
	return v
}

// bubble runs the test with simulated time.
func variableBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// state decodes a Variable from the JSON of its spec.
func state(t *testing.T, spec string) *kube.Variable {
	t.Helper()
	v := new(kube.Variable)
	require.NoError(t, json.Unmarshal([]byte(`{"metadata":{"name":"hits","uid":"u","resourceVersion":"1"},"spec":`+spec+`}`), v))
	return v
}

func TestConcurrentVariableAdditionsShareAFewWrites(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	v, next := newVariable(variableConfig{PodUID: "pod", Random: rand.NewPCG(1, 1)}), base.Clone()
	carried, settled, rest := v.try(calls, base, next)
	assert.Equal(t, []*call{calls[0], calls[2]}, carried)
	assert.Equal(t, calls[1:2], rest, "the key's record is still stored")
	assert.Empty(t, settled)
	_, kept := keptKey(next, "old0")
	assert.False(t, kept)
}

// fault is what happens to the first write. The result reports whether its answer arrives.
type fault func(s *variableServer, next *kube.Variable) (answered bool)

// adds lets another pod carry out the actions.
func adds(s *variableServer, actions ...Action) {
	s.edit(func(v *kube.Variable) {
		for _, a := range actions {
			_, _, _ = a.apply(v, "other", "")
		}
	})
}

func others(s *variableServer) { adds(s, Action{Add: 100}) }

// failingReads lets the next four reads fail.
func failingReads(s *variableServer) {
	reads := 0
	s.get = func() error {
		if reads++; reads < 5 {
			return errAway
		}
		return nil
	}
}

// answerLost is a write that never arrives, and stored one that arrives without its answer. Then come the
// effects.
func answerLost(effects ...func(*variableServer)) fault {
	return func(s *variableServer, _ *kube.Variable) bool {
		for _, effect := range effects {
			effect(s)
		}
		return false
	}
}

func stored(effects ...func(*variableServer)) fault {
	return func(s *variableServer, next *kube.Variable) bool {
		s.SetVariable(next)
		return answerLost(effects...)(s, next)
	}
}

// twice is a write that a proxy sends twice, and late one that arrives just before the second write.
func twice(effects ...func(*variableServer)) fault {
	return func(s *variableServer, next *kube.Variable) bool { return !stored(effects...)(s, next) }
}

func veryLate(effects ...func(*variableServer)) fault {
	return func(s *variableServer, first *kube.Variable) bool {
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
		"not stored, alone":                {answerLost(), "", Answer{Result: 1}, 1},
		"not stored, alone, with a key":    {answerLost(), "k", Answer{Result: 1}, 1},
		"stored, beside others":            {stored(others), "", Answer{Refusal: Unknown}, 101},
		"stored, with a key, others":       {stored(others), "k", Answer{Result: 1}, 101},
		"not stored, beside others":        {answerLost(others), "", Answer{Refusal: Unknown}, 100},
		"not stored, with a key, others":   {answerLost(others), "k", Answer{Result: 101}, 101},
		"not stored, added by another pod": {answerLost(func(s *variableServer) { adds(s, Action{Add: 100}, Action{Add: 1, Key: "k"}) }), "k", Answer{Result: 101}, 101},
		"twice":                            {twice(), "", Answer{Result: 1}, 1},
		"twice, with a key, others":        {twice(others), "k", Answer{Result: 1}, 101},
		"late":                             {veryLate(), "", Answer{Result: 1}, 1},
		"late, beside others":              {veryLate(others), "", Answer{Refusal: Unknown}, 101},
	} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
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
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		var group sync.WaitGroup
		for range 100 {
			group.Go(func() { assert.Empty(t, v.Get(t.Context()).Refusal) })
		}
		group.Wait()
		assert.LessOrEqual(t, s.count("get"), 2)
	})
}

func TestVariableCallsAreRefusedWhileTheAgentStops(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := newVariable(variableConfig{Name: "hits", Requests: s.Client("p"), PodUID: "p", Process: "p", Random: rand.NewPCG(1, 1)})
		stop := make(chan struct{})
		close(stop)
		v.Run(t.Context(), stop)
		assert.Equal(t, Stopping, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.Equal(t, Stopping, v.Follow(t.Context(), s.of(), func(*kube.Variable) bool { return true }))
	})
}

// repeat makes a proxy send each PUT twice. The first PUT is stored. The agent gets the answer of the
// second PUT, which is a conflict. Between the two PUTs the server runs the argument "between".
func (s *variableServer) repeat(between func()) {
	s.put = func(next *kube.Variable) (bool, bool) {
		if next.ResourceVersion == s.of().ResourceVersion {
			s.SetVariable(next)
			between()
		}
		return true, true
	}
}

func TestConflictAfterAStoredWriteAddsOnce(t *testing.T) {
	for name, action := range map[string]Action{"without a key": {Add: 1}, "with a key": {Add: 1, Key: "k"}} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
				s.repeat(func() {})
				assert.Equal(t, Answer{Result: 1}, v.Do(t.Context(), action))
				assert.EqualValues(t, 1, s.integer())
				one, two := carriedTogether(t.Context(), v, Action{Add: 10}, Action{Add: 20}, t.Context())
				assert.Equal(t, Answer{Result: 111}, <-one)
				assert.Equal(t, Answer{Result: 131}, <-two)
				assert.EqualValues(t, 131, s.integer())
				assert.Equal(t, 3, s.count("put"), "no write is repeated by the agent")
			})
		})
	}
}

func TestStoredWriteWithMatchNeverAnswersMismatch(t *testing.T) {
	for name, action := range map[string]Action{"match": {Text: new("b"), Match: "1"}, "fresh": {Text: new("b"), Fresh: true}} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
				s.repeat(func() {})
				answer := v.Do(t.Context(), action)
				require.Empty(t, answer.Refusal, "the write is stored")
				assert.Equal(t, "b", *answer.State.Value)
				next := Action{Text: new("c"), Match: answer.State.ResourceVersion}
				assert.Empty(t, v.Do(t.Context(), next).Refusal, "the answer has the version that the write stored")
				assert.Equal(t, Mismatch, v.Do(t.Context(), action).Refusal)
			})
		})
	}
}

// After the conflict no read succeeds, so the agent cannot learn whether the write is stored.
func TestConflictWithoutALaterReadIsUnknown(t *testing.T) {
	for name, gone := range map[string]bool{"outage": false, "deletion": true} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
				s.repeat(func() {
					s.get = func() error { return errAway }
					if gone {
						s.get = func() error { return &kube.StatusError{Code: 404} }
					}
				})
				assert.Equal(t, Unknown, v.Do(t.Context(), Action{Add: 1}).Refusal)
				assert.EqualValues(t, 1, s.integer())
			})
		})
	}
}

// A single write carries out an add with a key and a set. Another pod writes right after that write, so
// the key proves the write, but the version of the write is not known. With the version of the other
// pod's write, a program would overwrite a value that the program has not seen.
func TestSetNeverAnswersTheVersionOfAnotherWrite(t *testing.T) {
	for name, answered := range map[string]bool{"lost answer": false, "conflict": true} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
				puts := 0
				s.put = func(next *kube.Variable) (bool, bool) {
					if puts++; puts != 2 {
						return true, true
					}
					s.SetVariable(next)
					other := s.of()
					other.Write, other.Integer = "other.1", new(int64(7))
					s.SetVariable(other)
					return answered, answered
				}
				one, two := carriedTogether(t.Context(), v, Action{Add: 1, Key: "k"}, Action{Integer: new(int64(50))}, t.Context())
				assert.Equal(t, Answer{Result: 101}, <-one, "the key proves the add")
				assert.Equal(t, Answer{Refusal: Unknown}, <-two)
				assert.EqualValues(t, 7, s.integer())
			})
		})
	}
}

// lateEnd is a context that ends between two calls of Err. The context of a client's call may
// end in the same way.
type lateEnd struct {
	context.Context
	asked int
}

func (c *lateEnd) Err() error {
	if c.asked++; c.asked == 1 {
		return nil
	}
	return context.Canceled
}

func TestVariableCallThatExpiresIsAlwaysAnswered(t *testing.T) {
	t.Parallel()
	c := &call{ctx: &lateEnd{Context: context.Background()}, answer: make(chan Answer, 1)}
	c.until = time.Now().Add(time.Hour)
	if len(expire([]*call{c}, Unavailable)) == 0 {
		require.Len(t, c.answer, 1, "a call without an answer never returns, and keeps its place")
	}
}

// Both calls would fit into a single write. The first call changes the state that the second call matches.
func TestSetAfterAnAddMismatchesTheEarlierVersion(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		one, two := carriedTogether(t.Context(), v, Action{Add: 1}, Action{Integer: new(int64(50)), Match: "2"}, t.Context())
		assert.Equal(t, Answer{Result: 101}, <-one)
		assert.Equal(t, Mismatch, (<-two).Refusal)
		assert.EqualValues(t, 101, s.integer())
	})
}

func TestVersionOfAnotherPodsWriteMatches(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		require.Empty(t, v.Do(t.Context(), Action{Text: new("mine")}).Refusal)
		s.edit(func(v *kube.Variable) { v.Value = new("theirs") })
		version := v.Get(t.Context()).State.ResourceVersion
		assert.Empty(t, v.Do(t.Context(), Action{Text: new("next"), Match: version}).Refusal)
	})
}

func TestAnswerToSetHasItsOwnValue(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		v := startVariable(t, newVariableServer(t), "pod")
		one, two := carriedTogether(t.Context(), v, Action{Integer: new(int64(50))}, Action{Add: 1}, t.Context())
		assert.EqualValues(t, 50, *(<-one).State.Integer, "the later add has a write of its own")
		assert.Equal(t, Answer{Result: 51}, <-two)
	})
}

// The policy on Variables refuses a write that counts more than 64 adds with a key.
func TestOneWriteNeverCountsTooManyKeys(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		most := int64(0)
		s.put = func(next *kube.Variable) (bool, bool) {
			most = max(most, next.Keyed-s.of().Keyed)
			return true, true
		}
		var group sync.WaitGroup
		for n := range mostCalls {
			group.Go(func() { assert.Empty(t, v.Do(t.Context(), Action{Add: 1, Key: fmt.Sprint(n)}).Refusal) })
		}
		group.Wait()
		assert.LessOrEqual(t, most, int64(api.MaxKeys))
		assert.EqualValues(t, mostCalls, s.integer())
	})
}

func TestMissingVariableServesAgainAfterItsReturn(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		before := s.of()
		s.remove()
		for range 3 {
			assert.Equal(t, Absent, v.Do(t.Context(), Action{Add: 1}).Refusal)
		}
		s.SetVariable(before)
		assert.Equal(t, Answer{Result: 1}, v.Do(t.Context(), Action{Add: 1}))
	})
}

func TestDeletionDuringAWriteAnswersUnknownAtOnce(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		s.put = func(*kube.Variable) (bool, bool) {
			s.remove()
			return false, false
		}
		began := time.Now()
		assert.Equal(t, Unknown, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.Less(t, time.Since(began), time.Second)
	})
}

// The API server has work for other clients, too, so a write that fails again and again causes few
// requests.
func TestFailingWritesCauseFewRequests(t *testing.T) {
	for name, test := range map[string]struct {
		trouble func(s *variableServer)
		want    Refusal
		most    int
	}{
		"refused":    {func(s *variableServer) { s.denied = &kube.StatusError{Code: 403} }, Unavailable, 30},
		"unanswered": {func(s *variableServer) { s.put = func(*kube.Variable) (bool, bool) { return false, false } }, Unknown, 40},
		"conflicts": {func(s *variableServer) {
			s.put = func(*kube.Variable) (bool, bool) {
				other := s.of()
				other.Write = "other.1"
				s.SetVariable(other)
				return true, true
			}
		}, Unknown, 200},
	} {
		t.Run(name, func(t *testing.T) {
			variableBubble(t, func(t *testing.T) {
				s := newVariableServer(t)
				v := startVariable(t, s, "pod")
				test.trouble(s)
				assert.Equal(t, test.want, v.Do(t.Context(), Action{Add: 1}).Refusal)
				assert.LessOrEqual(t, s.count("put"), test.most)
				assert.LessOrEqual(t, s.count("get"), test.most+1)
			})
		})
	}
}

// Each ended call makes room for another call, however many calls there have been.
func TestEndedCallsMakeRoomForOthers(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		v := startVariable(t, newVariableServer(t), "pod")
		first := v.Get(t.Context()).State
		for name, call := range map[string]func() Refusal{
			"add":  func() Refusal { return v.Do(t.Context(), Action{Add: 1}).Refusal },
			"read": func() Refusal { return v.Get(t.Context()).Refusal },
			"watch": func() Refusal {
				return v.Follow(t.Context(), first, func(*kube.Variable) bool { return false })
			},
			"add that its program withdraws": func() Refusal {
				ctx, end := context.WithCancel(t.Context())
				end()
				if refusal := v.Do(ctx, Action{Add: 1}).Refusal; refusal != Unavailable {
					return refusal
				}
				return ""
			},
		} {
			for range mostCalls + 1 {
				require.Empty(t, call(), name)
			}
		}
	})
}

// hung is an API server that accepts requests, and answers none.
type hung struct{ VariableAPI }

func (hung) GetVariable(ctx context.Context, _ string) (*kube.Variable, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHungServerNeverHangsACall(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		v := startVariable(t, newVariableServer(t), "pod")
		v.config.Requests = hung{}
		began := time.Now()
		assert.Equal(t, Unavailable, v.Get(t.Context()).Refusal)
		assert.LessOrEqual(t, time.Since(began), 5*time.Second)
		began = time.Now()
		assert.Equal(t, Unavailable, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.LessOrEqual(t, time.Since(began), 15*time.Second)
	})
}

// The function "follows" follows the Variable until ctx ends. The result "seen" is a function
// that returns the Variable's integers that the method Follow has delivered so far. The result
// "done" is a channel that delivers the result of Follow.
func follows(ctx context.Context, v *Variable, first *kube.Variable) (seen func() []int64, done <-chan Refusal) {
	var mu sync.Mutex
	var all []int64
	ended := make(chan Refusal, 1)
	go func() {
		ended <- v.Follow(ctx, first, func(now *kube.Variable) bool {
			mu.Lock()
			defer mu.Unlock()
			n := int64(-1)
			if now.Integer != nil {
				n = *now.Integer
			}
			all = append(all, n)
			return true
		})
	}()
	return func() []int64 {
		mu.Lock()
		defer mu.Unlock()
		return append([]int64(nil), all...)
	}, ended
}

func set(n int64) func(*kube.Variable) { return func(v *kube.Variable) { v.Integer = &n } }

func TestProgramsShareOneVariableWatchWithoutPolling(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		first := v.Get(t.Context()).State
		seen, done := follows(t.Context(), v, first)
		ctx, end := context.WithCancel(t.Context())
		other, otherDone := follows(ctx, v, first)
		<-time.After(time.Second)
		s.edit(set(1))
		synctest.Wait()
		s.edit(set(2))
		<-time.After(mostWatched/2 - 2*time.Second)
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1, 2}, seen())
		assert.Equal(t, []int64{-1, 1, 2}, other())
		assert.Equal(t, 1, s.count("get"))
		assert.Equal(t, 1, s.count("watch"))
		end()
		assert.Empty(t, <-otherDone)
		<-time.After(3 * mostWatched)
		s.edit(set(3))
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1, 2, 3}, seen())
		assert.Equal(t, []int64{-1, 1, 2}, other())
		s.remove()
		assert.Equal(t, Absent, <-done)
		<-time.After(time.Second) // within this second the last request ends
	})
}

func TestProgramSeesVariableChangesWhileWatchIsBroken(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Second / 2)
		s.edit(set(1))
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1}, seen())
		assert.LessOrEqual(t, s.count("watch"), 61, "a broken watch is not polled")
	})
}

// A follower that begins late may have read a newer state than the watch has delivered.
func TestVariableWatchNeverDeliversAnOlderState(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		_, _ = follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Millisecond * 10)
		s.edit(set(5))
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{5}, seen())
	})
}

// A person deletes the Variable and creates it again, while the watch delivers no event.
func TestStreamNeverReturnsToADeletedVariable(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		s.edit(set(7))
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		old, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Millisecond * 10)
		s.edit(func(v *kube.Variable) { v.UID, v.Integer = "another", new(int64(0)) })
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, []int64{0}, seen())
		assert.Equal(t, []int64{7, 0}, old())
	})
}

func TestWatchEndsWithTheLastFollower(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		ctx, end := context.WithCancel(t.Context())
		_, done := follows(ctx, v, v.Get(t.Context()).State)
		<-time.After(time.Second)
		end()
		<-done
		<-time.After(time.Second)
		gets, watches := s.count("get"), s.count("watch")
		<-time.After(3 * mostWatched)
		assert.Equal(t, gets, s.count("get"))
		assert.Equal(t, watches, s.count("watch"))
	})
}

// forgetful is an API server that has restarted, and has forgotten all versions. Without a version, its watch
// begins with the deletion of an earlier Variable.
type forgetful struct{ VariableAPI }

func (f forgetful) WatchVariable(ctx context.Context, name, from string, fn func(*kube.Variable, bool)) error {
	if from != "" {
		return &kube.StatusError{Code: 410}
	}
	for _, gone := range []bool{false, true} {
		fn(&kube.Variable{Name: name, UID: "earlier", ResourceVersion: "0", Integer: new(int64(9))}, gone)
	}
	return f.VariableAPI.WatchVariable(ctx, name, from, fn)
}

func TestIdleVariableIsNotPolledAfterARestart(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		v.follow.Requests = forgetful{v.follow.Requests}
		seen, _ := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(time.Hour)
		assert.LessOrEqual(t, len(s.Requests()), 2+2*int(time.Hour/(mostWatched/2)))
		s.edit(set(1))
		synctest.Wait()
		assert.Equal(t, []int64{-1, 1}, seen())
	})
}

// No watch works, so only a read shows the deletion.
func TestStreamEndsAfterADeletionWithoutAWatch(t *testing.T) {
	variableBubble(t, func(t *testing.T) {
		s := newVariableServer(t)
		v := startVariable(t, s, "pod")
		s.Lock()
		s.mute = errors.New("410")
		s.Unlock()
		_, done := follows(t.Context(), v, v.Get(t.Context()).State)
		<-time.After(10 * time.Second)
		s.remove()
		select {
		case refusal := <-done:
			assert.Equal(t, Absent, refusal)
		case <-time.After(time.Minute):
			assert.Fail(t, "the stream goes on without its Variable")
		}
	})
}
