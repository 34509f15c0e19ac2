// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// The function "under" returns a function that returns the fence of a hold.
func under(lock string, epoch, token int64) func() (kube.Fence, Refusal) {
	return func() (kube.Fence, Refusal) { return kube.Fence{Lock: lock, Epoch: epoch, Token: token}, "" }
}

func TestRefusedActionNeverChangesTheVariable(t *testing.T) {
	const fenced = `{"integer":1,"fence":{"lock":"lock.a","epoch":2,"token":10}}`
	for name, test := range map[string]struct {
		spec   string
		action Action
		want   Refusal
		value  string // the value of the Variable after the action
	}{
		"add to nothing":           {`{}`, Action{Add: 5}, "", "5"},
		"add":                      {`{"integer":40}`, Action{Add: 2}, "", "42"},
		"subtract":                 {`{"integer":40}`, Action{Add: -2}, "", "38"},
		"add nothing":              {`{"integer":40}`, Action{}, "", "40"},
		"add to the largest":       {`{"integer":9223372036854775807}`, Action{Add: 1}, Overflow, "9223372036854775807"},
		"subtract from the least":  {`{"integer":-9223372036854775808}`, Action{Add: -1}, Overflow, "-9223372036854775808"},
		"add the least":            {`{"integer":-1}`, Action{Add: math.MinInt64}, Overflow, "-1"},
		"reach the largest":        {`{"integer":9223372036854775806}`, Action{Add: 1}, "", "9223372036854775807"},
		"cross all":                {`{"integer":-9223372036854775808}`, Action{Add: math.MaxInt64}, "", "-1"},
		"add to a text":            {`{"value":"x"}`, Action{Add: 1}, WrongType, "x"},
		"set nothing to a text":    {`{}`, Action{Text: new("x")}, "", "x"},
		"set nothing, untyped":     {`{}`, Action{Typed: new("7")}, "", "7"},
		"set a text":               {`{"value":"x"}`, Action{Typed: new("7")}, "", "7"},
		"set an integer":           {`{"integer":1}`, Action{Typed: new("7")}, "", "7"},
		"set an integer to a word": {`{"integer":1}`, Action{Typed: new("x")}, WrongType, "1"},
		"make an integer a text":   {`{"integer":1}`, Action{Text: new("7")}, WrongType, "1"},
		"make a text an integer":   {`{"value":"1"}`, Action{Integer: new(int64(7))}, WrongType, "1"},
		"match":                    {`{"integer":1}`, Action{Integer: new(int64(7)), Match: "1"}, "", "7"},
		"match another version":    {`{"integer":1}`, Action{Integer: new(int64(7)), Match: "2"}, Mismatch, "1"},
		"be the first":             {`{}`, Action{Add: 1, Fresh: true}, "", "1"},
		"be not the first":         {`{"integer":0}`, Action{Add: 1, Fresh: true}, Mismatch, "0"},
		"begin a fence":            {`{"integer":1}`, Action{Add: 1, Fence: under("lock.a", 1, 10)}, "", "2"},
		"no hold":                  {fenced, Action{Add: 1}, Fenced, "1"},
		"the same hold":            {fenced, Action{Add: 1, Fence: under("lock.a", 2, 10)}, "", "2"},
		"a later hold":             {fenced, Action{Add: 1, Fence: under("lock.a", 2, 11)}, "", "2"},
		"an earlier hold":          {fenced, Action{Add: 1, Fence: under("lock.a", 2, 9)}, Fenced, "1"},
		"an earlier epoch":         {fenced, Action{Add: 1, Fence: under("lock.a", 1, 99)}, Fenced, "1"},
		"a later epoch":            {fenced, Action{Add: 1, Fence: under("lock.a", 3, 1)}, "", "2"},
		"another lock":             {fenced, Action{Add: 1, Fence: under("lock.b", 2, 10)}, Fenced, "1"},
		"a lost hold":              {fenced, Action{Add: 1, Fence: func() (kube.Fence, Refusal) { return kube.Fence{}, LostHold }}, LostHold, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			v := state(t, test.spec)
			_, changed, refusal := test.action.apply(v, "pod", v.ResourceVersion)
			assert.Equal(t, test.want, refusal)
			assert.Equal(t, refusal == "", changed)
			value := ""
			switch {
			case v.Integer != nil:
				require.Nil(t, v.Value)
				value = fmt.Sprint(*v.Integer)
			case v.Value != nil:
				value = *v.Value
			}
			assert.Equal(t, test.value, value)
			if changed && test.action.Fence != nil {
				want, _ := test.action.Fence()
				assert.Equal(t, want, *v.Fence, "the fence is the hold's own")
			}
		})
	}
}

func TestAdditionWithRepeatedIdempotencyKeyReturnsFirstResult(t *testing.T) {
	v := state(t, `{}`)
	first := Action{Add: 5, Key: "k"}
	result, changed, refusal := first.apply(v, "pod", "")
	require.Empty(t, refusal)
	require.True(t, changed)
	other := Action{Add: 1}
	_, _, _ = other.apply(v, "pod", "")
	again, changed, refusal := first.apply(v, "other pod", "")
	assert.Empty(t, refusal)
	assert.False(t, changed)
	assert.Equal(t, result, again)
	_, changed, refusal = (&Action{Add: 6, Key: "k"}).apply(v, "pod", "")
	assert.Equal(t, KeyReused, refusal)
	assert.False(t, changed)
	assert.EqualValues(t, 6, *v.Integer)
	assert.EqualValues(t, 1, v.Keyed)
}

// The Variable keeps the newest key of each pod until that key is old. Even a busy pod that adds
// many keys must not remove the newest key of another pod.
func FuzzNewestIdempotencyKeyOfEachPodIsKept(f *testing.F) {
	f.Add(uint64(1), 5)
	f.Add(uint64(2), 63)
	f.Fuzz(func(t *testing.T, seed uint64, pods int) {
		if pods < 1 || pods > api.MaxKeys {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		v := &kube.Variable{Keyed: 5 * oldAfter}
		all := map[string][]int64{} // the values of v.Keyed after the adds of each pod
		for n := range 3 * api.MaxKeys {
			pod := fmt.Sprint(random.IntN(pods))
			if random.IntN(3) > 0 {
				pod = "0" // the pod 0 is busy
			}
			a := Action{Add: 1, Key: fmt.Sprint(n)}
			_, changed, refusal := a.apply(v, pod, "")
			require.True(t, changed)
			require.Empty(t, refusal)
			all[pod] = append(all[pod], v.Keyed)
			require.LessOrEqual(t, len(v.Keys), api.MaxKeys)
			kept := map[int64]bool{}
			for _, k := range v.Keys {
				kept[k.At] = true
			}
			for pod, of := range all {
				share := min(len(of), api.MaxKeys/len(all))
				for _, at := range of[len(of)-share:] {
					require.True(t, kept[at], "pod %s lost one of its newest %d keys", pod, share)
				}
			}
		}
	})
}

func TestFullVariableDropsOldIdempotencyKeysFirst(t *testing.T) {
	v := &kube.Variable{}
	for pod := range api.MaxKeys {
		_, _, _ = (&Action{Add: 1, Key: fmt.Sprint("ended", pod)}).apply(v, fmt.Sprint("ended", pod), "")
	}
	for n := range oldAfter + api.MaxKeys {
		_, _, _ = (&Action{Add: 1, Key: fmt.Sprint(n)}).apply(v, "living", "")
	}
	for _, k := range v.Keys {
		assert.Equal(t, "living", k.Pod)
	}
	assert.Len(t, v.Keys, api.MaxKeys)
}

// The proof that a write was not stored must be right for every later state that other pods can
// cause.
func FuzzStoredVariableWriteIsNeverDeclaredLost(f *testing.F) {
	f.Add(uint64(1), 10, 70, 5)
	f.Add(uint64(2), 64, 64, 80)
	f.Add(uint64(3), 0, 1100, 70)
	f.Add(uint64(4), 0, 1100, 5)
	f.Add(uint64(5), 10, 900, 200)
	f.Add(uint64(6), 300, 900, 5)
	f.Add(uint64(7), 640, 40, 200)
	f.Fuzz(func(t *testing.T, seed uint64, before, after, pods int) {
		if min(before, after) < 0 || max(before, after) > 3*oldAfter || pods < 1 || pods > 200 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		base := &kube.Variable{UID: "u"}
		n := 0
		others := func(v *kube.Variable, count int) {
			for range count {
				n++
				_, _, _ = (&Action{Add: 1, Key: fmt.Sprint("k", n)}).apply(v, fmt.Sprint("pod", random.IntN(pods)), "")
			}
		}
		others(base, before)
		base.ResourceVersion = "1"
		next := base.Clone()
		for i := range 1 + random.IntN(mostAtOnce) {
			_, _, _ = (&Action{Add: 1, Key: fmt.Sprint("mine", i)}).apply(next, "mine", "")
		}
		next.Write = "mine"
		there := next.Clone()
		there.ResourceVersion = "2"
		require.Equal(t, isStored, proof(base, next, there))
		others(there, after)
		there.Write, there.ResourceVersion = "others", "3"
		if after > 0 {
			require.NotEqual(t, isLost, proof(base, next, there))
			require.NotEqual(t, isOpen, proof(base, next, there))
		}
		without := base.Clone()
		others(without, max(after, 1))
		without.Write, without.ResourceVersion = "others", "3"
		require.NotEqual(t, isStored, proof(base, next, without))
		require.NotEqual(t, isOpen, proof(base, next, without))
		if after < api.MaxKeys || after < oldAfter && pods < api.MaxKeys {
			require.Equal(t, isLost, proof(base, next, without))
		}
	})
}
