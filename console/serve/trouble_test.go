// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/console/view"
)

// TestConsoleStreamSendsWarningsBeforeFirstSlotState warns before and after the first state.
func TestConsoleStreamSendsWarningsBeforeFirstSlotState(t *testing.T) {
	s, server := serving(t)
	early := connect(t, server, "")
	const begins = `{"now":"2026-11-23T12:00:00Z","trouble":"closed"}`
	require.NoError(t, s.Warn("closed"))
	assert.Equal(t, event{"", "alive", begins}, early.next())
	assert.Contains(t, string(bytes.Join(s.alive(), nil)), begins, "an idle stream repeats the trouble")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	assert.Equal(t, "state", early.next().name)
	require.NoError(t, s.Warn("closed"))
	assert.Equal(t, event{"2", "change", begins}, early.next())
	require.NoError(t, s.Warn("closed"))
	require.NoError(t, s.Warn(""))
	assert.Equal(t, event{"3", "change", `{"now":"2026-11-23T12:00:00Z","trouble":""}`}, early.next(), "a repeated trouble is no change")
}
