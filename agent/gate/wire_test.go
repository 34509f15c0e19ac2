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

func TestDecoderRefusesMalformedMessages(t *testing.T) {
	t.Parallel()
	_, _, err := DecodeMessage([]byte(goodState))
	require.NoError(t, err)
	_, answer, err := DecodeMessage([]byte(goodAnswer))
	require.NoError(t, err)
	assert.Equal(t, &Outcome{ID: "r", Code: 1, Output: []byte("out")}, answer)
	for name, message := range map[string]string{
		"no JSON":                   `{`,
		"nothing":                   ``,
		"unknown phase":             `{"shim":"s","container":"app","phase":"dead"}`,
		"no shim":                   `{"container":"app","phase":"waiting"}`,
		"container that is a path":  `{"shim":"s","container":"../x","phase":"waiting"}`,
		"container that is hidden":  `{"shim":"s","container":".","phase":"waiting"}`,
		"container of a note being": `{"shim":"s","container":"app.new","phase":"waiting"}`,
		"hold that is too long":     `{"shim":"s","container":"app","phase":"waiting","hold":"` + strings.Repeat("h", 65) + `"}`,
		"very many slots":           `{"shim":"s","container":"app","phase":"waiting","slots":[{}` + strings.Repeat(",{}", 256) + `]}`,
		"running under no hold":     `{"shim":"s","container":"app","phase":"running"}`,
		"answer to no order":        `{"ran":{"code":1}}`,
		"answer that is too long":   `{"ran":{"id":"r","output":"` + strings.Repeat("AAAA", MostOutput/3+1) + `"}}`,
	} {
		_, _, err := DecodeMessage([]byte(message))
		assert.ErrorIs(t, err, ErrMessage, name)
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
		"impossible code":      `{"dismiss":{"code":256}}`,
		"endless run":          `{"run":{"id":"r","command":["x"],"timeout":9223372036854775807}}`,
	} {
		_, err := DecodeOrder([]byte(message))
		assert.ErrorIs(t, err, ErrMessage, name)
	}
}

func FuzzDecodedMessageSurvivesARoundTrip(f *testing.F) {
	f.Add([]byte(goodState))
	f.Add([]byte(goodAnswer))
	f.Add([]byte(`{"shim":"s","container":"app","phase":"waiting"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, answer, err := DecodeMessage(b)
		if err != nil {
			return
		}
		if answer != nil {
			assert.NotEmpty(t, answer.ID)
			assert.LessOrEqual(t, len(answer.Output), MostOutput)
			return
		}
		assert.NotContains(t, s.Container, "/")
		assert.NotContains(t, s.Container, ".")
		again, err := json.Marshal(Message{Report: &s})
		require.NoError(t, err)
		same, _, err := DecodeMessage(again)
		require.NoError(t, err)
		assert.Equal(t, s, same)
	})
}

func FuzzTimesOfADecodedOrderStayWithinBounds(f *testing.F) {
	f.Add([]byte(`{"grant":{"hold":"h","bootID":"b","deadline":9223372036854775807,"drain":1,"kill":1}}`))
	f.Add([]byte(`{"drain":{"hold":"h","reason":"r","grace":1,"end":true}}`))
	f.Add([]byte(`{"run":{"id":"r","command":["true"],"timeout":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeOrder(b)
		if err != nil {
			return
		}
		if g := o.Grant; g != nil {
			assert.LessOrEqual(t, g.DrainAt(), g.KillAt())
			assert.LessOrEqual(t, g.KillAt(), g.LastResort())
			assert.LessOrEqual(t, g.LastResort(), g.Deadline)
		}
		if d := o.Drain; d != nil {
			assert.LessOrEqual(t, d.Grace, longest)
		}
		if r := o.Aside; r != nil {
			assert.NotEmpty(t, r.Command)
			assert.LessOrEqual(t, r.Timeout, longest)
		}
	})
}

func TestGrantSchedulesDrainAndKillBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	g := Grant{Deadline: 100 * time.Second, Drain: 9 * time.Second, Kill: time.Second}
	assert.Equal(t, 90*time.Second, g.DrainAt())
	assert.Equal(t, 99*time.Second, g.KillAt())
	assert.Equal(t, 99600*time.Millisecond, g.LastResort())
}
