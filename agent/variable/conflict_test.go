// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// repeat makes a proxy send each PUT twice. The first PUT is stored. The agent gets the answer of the
// second PUT, which is a conflict. Between the two PUTs the server runs the argument "between".
func (s *server) repeat(between func()) {
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
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
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
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
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
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
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
			bubble(t, func(t *testing.T) {
				s := newServer(t)
				v := start(t, s, "pod")
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
