// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const goodState = `{"shim":"s","container":"app","bootID":"b","pid1":true,"phase":"running","hold":"h","slots":[{"slot":"x","token":"1"}],"since":1}`

const goodAnswer = `{"ran":{"id":"r","code":1,"output":"b3V0"}}`

func TestMessagesThatNoEndSendsAreRefused(t *testing.T) {
	t.Parallel()
	_, _, err := decodeMessage([]byte(goodState))
	require.NoError(t, err)
	_, answer, err := decodeMessage([]byte(goodAnswer))
	require.NoError(t, err)
	assert.Equal(t, &ran{ID: "r", Code: 1, Output: []byte("out")}, answer)
	for name, message := range map[string]string{
		"no JSON":                   `{`,
		"nothing":                   ``,
		"unknown phase":             `{"shim":"s","container":"app","phase":"dead"}`,
		"no shim":                   `{"container":"app","phase":"waiting"}`,
		"container that is a path":  `{"shim":"s","container":"../x","phase":"waiting"}`,
		"container that is hidden":  `{"shim":"s","container":".","phase":"waiting"}`,
		"container of a note being": `{"shim":"s","container":"app.new","phase":"waiting"}`,
		"running under no hold":     `{"shim":"s","container":"app","phase":"running"}`,
		"answer to no order":        `{"ran":{"code":1}}`,
		"answer that is too long":   `{"ran":{"id":"r","output":"` + strings.Repeat("AAAA", mostOutput/3+1) + `"}}`,
	} {
		_, _, err := decodeMessage([]byte(message))
		assert.ErrorIs(t, err, errMessage, name)
	}
	for name, message := range map[string]string{
		"grant of no hold":     `{"grant":{"bootID":"b","deadline":1}}`,
		"grant of no boot":     `{"grant":{"hold":"h","deadline":1}}`,
		"grant of no deadline": `{"grant":{"hold":"h","bootID":"b"}}`,
		"negative drain":       `{"grant":{"hold":"h","bootID":"b","deadline":1,"drain":-1}}`,
		"endless kill":         `{"grant":{"hold":"h","bootID":"b","deadline":1,"kill":9223372036854775807}}`,
		"drain of no hold":     `{"drain":{"grace":1}}`,
		"endless grace":        `{"drain":{"hold":"h","grace":9223372036854775807}}`,
		"run of nothing":       `{"run":{"id":"r","timeout":1}}`,
		"run without an id":    `{"run":{"command":["x"],"timeout":1}}`,
		"run without an end":   `{"run":{"id":"r","command":["x"]}}`,
		"endless run":          `{"run":{"id":"r","command":["x"],"timeout":9223372036854775807}}`,
	} {
		_, err := decodeOrder([]byte(message))
		assert.ErrorIs(t, err, errMessage, name)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(goodState))
	f.Add([]byte(goodAnswer))
	f.Add([]byte(`{"shim":"s","container":"app","phase":"waiting"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, answer, err := decodeMessage(b)
		if err != nil {
			return
		}
		if answer != nil {
			assert.NotEmpty(t, answer.ID)
			assert.LessOrEqual(t, len(answer.Output), mostOutput)
			return
		}
		assert.NotContains(t, s.Container, "/")
		assert.NotContains(t, s.Container, ".")
		again, err := json.Marshal(message{state: &s})
		require.NoError(t, err)
		same, _, err := decodeMessage(again)
		require.NoError(t, err)
		// JSON has no way to tell no slots from none.
		if len(s.Slots) == 0 {
			s.Slots = nil
		}
		assert.Equal(t, s, same)
	})
}

func FuzzDecodeOrder(f *testing.F) {
	f.Add([]byte(`{"grant":{"hold":"h","bootID":"b","deadline":9223372036854775807,"drain":1,"kill":1}}`))
	f.Add([]byte(`{"drain":{"hold":"h","reason":"r","grace":1,"end":true}}`))
	f.Add([]byte(`{"run":{"id":"r","command":["true"],"timeout":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOrder(b)
		if err != nil {
			return
		}
		if g := o.Grant; g != nil {
			assert.LessOrEqual(t, g.drainAt(), g.killAt())
			assert.LessOrEqual(t, g.killAt(), g.lastResort())
			assert.LessOrEqual(t, g.lastResort(), g.Deadline)
		}
		if d := o.Drain; d != nil {
			assert.LessOrEqual(t, d.Grace, longest)
		}
		if r := o.Run; r != nil {
			assert.NotEmpty(t, r.Command)
			assert.LessOrEqual(t, r.Timeout, longest)
		}
	})
}

func TestProcessesAreReadWhateverTheirNames(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]process{
		"12 (sh) S 1 12 12 0":          {pid: 12, parent: 1},
		"13 (a) Z 9 (b) R 12 0":        {pid: 13, parent: 12},
		"14 () Z 12 0":                 {pid: 14, parent: 12, zombie: true},
		"15 (x\n16 (y) S 3) D 13 13 0": {pid: 15, parent: 13},
	} {
		got, ok := parseStat([]byte(stat))
		assert.True(t, ok, stat)
		assert.Equal(t, want, got, stat)
	}
	for _, stat := range []string{"", "1", "1 (x", "1 (x)", "1 (x) S", "x (x) S 1 1", "1 (x) S y 1", ") (1"} {
		_, ok := parseStat([]byte(stat))
		assert.False(t, ok, stat)
	}
}

func TestDescendantsAreFoundThroughEveryGeneration(t *testing.T) {
	t.Parallel()
	all := []process{
		{pid: 1}, {pid: 5, parent: 4}, {pid: 3, parent: 1}, {pid: 4, parent: 3}, {pid: 9, parent: 0}, {pid: 10, parent: 9},
		// Read while process ids passed on: a circle.
		{pid: 20, parent: 21}, {pid: 21, parent: 20}, {pid: 20, parent: 1},
	}
	var pids []int
	for _, p := range descendants(all, 1) {
		pids = append(pids, p.pid)
	}
	assert.ElementsMatch(t, []int{3, 4, 5, 20, 21, 20}, pids)
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("15 (x\n16 (y) S 3) D 13 13 0"))
	f.Fuzz(func(_ *testing.T, stat []byte) { parseStat(stat) })
}

func TestTheBudgetOfAGrantEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	g := Grant{Deadline: 100 * time.Second, Drain: 9 * time.Second, Kill: time.Second}
	assert.Equal(t, 90*time.Second, g.drainAt())
	assert.Equal(t, 99*time.Second, g.killAt())
	assert.Equal(t, 99600*time.Millisecond, g.lastResort())
}
