// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// Both calls would fit into a single write. The first call changes the state that the second call matches.
func TestSetAfterAnAddMismatchesTheEarlierVersion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		one, two := carriedTogether(t.Context(), v, Action{Add: 1}, Action{Integer: new(int64(50)), Match: "2"}, t.Context())
		assert.Equal(t, Answer{Result: 101}, <-one)
		assert.Equal(t, Mismatch, (<-two).Refusal)
		assert.EqualValues(t, 101, s.integer())
	})
}

func TestVersionOfAnotherPodsWriteMatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
		require.Empty(t, v.Do(t.Context(), Action{Text: new("mine")}).Refusal)
		s.edit(func(v *kube.Variable) { v.Value = new("theirs") })
		version := v.Get(t.Context()).State.ResourceVersion
		assert.Empty(t, v.Do(t.Context(), Action{Text: new("next"), Match: version}).Refusal)
	})
}

func TestAnswerToSetHasItsOwnValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		v := start(t, newServer(t), "pod")
		one, two := carriedTogether(t.Context(), v, Action{Integer: new(int64(50))}, Action{Add: 1}, t.Context())
		assert.EqualValues(t, 50, *(<-one).State.Integer, "the later add has a write of its own")
		assert.Equal(t, Answer{Result: 51}, <-two)
	})
}

// The policy on Variables refuses a write that counts more than 64 adds with a key.
func TestOneWriteNeverCountsTooManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
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
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
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
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		v := start(t, s, "pod")
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
		trouble func(s *server)
		want    Refusal
		most    int
	}{
		"refused":    {func(s *server) { s.denied = &kube.StatusError{Code: 403} }, Unavailable, 30},
		"unanswered": {func(s *server) { s.put = func(*kube.Variable) (bool, bool) { return false, false } }, Unknown, 40},
		"conflicts": {func(s *server) {
			s.put = func(*kube.Variable) (bool, bool) {
				other := s.of()
				other.Write = "other.1"
				s.SetVariable(other)
				return true, true
			}
		}, Unknown, 200},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
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
	bubble(t, func(t *testing.T) {
		v := start(t, newServer(t), "pod")
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
type hung struct{ Requests }

func (hung) GetVariable(ctx context.Context, _ string) (*kube.Variable, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHungServerNeverHangsACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		v := start(t, newServer(t), "pod")
		v.config.Requests = hung{}
		began := time.Now()
		assert.Equal(t, Unavailable, v.Get(t.Context()).Refusal)
		assert.LessOrEqual(t, time.Since(began), 5*time.Second)
		began = time.Now()
		assert.Equal(t, Unavailable, v.Do(t.Context(), Action{Add: 1}).Refusal)
		assert.LessOrEqual(t, time.Since(began), 15*time.Second)
	})
}
