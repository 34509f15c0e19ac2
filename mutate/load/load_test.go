// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMemoryEstimateCountsJSONObjectsMembersAndStrings(t *testing.T) {
	for text, want := range map[string]int64{
		``:                        0,
		`[]`:                      perObject,
		`[0,null,"a",true]`:       4 * perObject,
		`[{"a":0,"b":0},{"a":0}]`: 2*perObject + 3*perMember,
		`{"a":",:[{\",{","b":0}`:  2 * perMember,
		`["-<a,b>","\u002d,"]`:    2*perObject + 3*perNested + 2*perEscape,
		`{"args":["a","b","c"]}`:  perObject + perMember + 2*perWord,
		`{"args":["a",{},0]}`:     3*perObject + perMember + perWord,
		`["args","a"]`:            2 * perObject,
		`::"\`:                    0,
	} {
		assert.Equal(t, want, estimate([]byte(text)), text)
	}
}

// Large calls must leave room for small calls, because most pods are small.
func TestSmallCallsAreAdmittedDespiteManyLargeCalls(t *testing.T) {
	limit := new(Limit)
	arrive := func(length int) (*Share, error) {
		s := limit.Share()
		_, err := io.Copy(io.Discard, s.Meter(strings.NewReader(strings.Repeat("x", length))))
		return s, err
	}
	var large []*Share
	for {
		s, err := arrive(3 << 20)
		if err != nil {
			require.ErrorIs(t, err, ErrOverloaded)
			s.Free()
			break
		}
		large = append(large, s)
	}
	require.NotEmpty(t, large)
	// A body that is not large as a whole call counts as large while it arrives.
	for len(large) < 1000 {
		s, err := arrive(300 << 10)
		if err != nil {
			s.Free()
			break
		}
		large = append(large, s)
	}
	for n := range 50 {
		s, err := arrive(8 << 10)
		require.NoError(t, err, "small call %d", n)
		require.NoError(t, s.Decode([]byte(strings.Repeat("{", 50))), "small call %d", n)
	}
	// A small body with very many JSON objects counts as a large call.
	hollow, err := arrive(64 << 10)
	require.NoError(t, err)
	require.ErrorIs(t, hollow.Decode([]byte(strings.Repeat("{", 32<<10))), ErrOverloaded)
	for _, s := range large {
		s.Free()
	}
}

// A namespace may have very many calls that wait for hanging registries.
func TestOneNamespaceLeavesHalfOfTheLoadFree(t *testing.T) {
	limit := new(Limit)
	join := func(namespace string) error {
		s := limit.Share()
		err := s.Decode(nil)
		if err == nil {
			err = s.Join(namespace)
		}
		if err != nil {
			s.Free()
		}
		return err
	}
	fill := func(namespace string) {
		for {
			if err := join(namespace); err != nil {
				require.ErrorIs(t, err, ErrOverloaded)
				return
			}
		}
	}
	for n, namespace := range []string{"evil", "odd", "bad"} {
		fill(namespace)
		assert.GreaterOrEqual(t, defaultLoad-limit.Used(), int64(defaultLoad>>(n+1)-n*perCall), "free beside %s", namespace)
		require.NoError(t, join("shop"), "beside %s", namespace)
	}
	fill("evil")
	for n := range 20 {
		require.NoError(t, join("shop"), "call %d", n)
	}
}

func TestFreedSharesLeaveNoNamespaceBehind(t *testing.T) {
	limit := new(Limit)
	a, b := limit.Share(), limit.Share()
	for _, s := range []*Share{a, b} {
		require.NoError(t, s.Decode(nil))
		require.NoError(t, s.Join("shop"))
		require.NoError(t, AddPatch(s.Within(t.Context()), 1<<10))
	}
	a.Free()
	assert.Equal(t, map[string]int64{"shop": limit.Used()}, limit.namespaces)
	b.Free()
	assert.Empty(t, limit.namespaces)
	assert.Zero(t, limit.Used())
}
