// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// The application stops serving for a moment in the stage "leaving". Meanwhile the other standby lets
// connections wait, and is prepared. Then the standby forwards again, and its offer stays prepared.
func TestEarlyPreparationOfStandbysDoesNotCount(t *testing.T) {
	prepared := api.Words{{Identity: "b", Say: api.Prepared}, {Identity: "c", Say: api.Prepared}}
	for name, c := range map[string]struct {
		serves bool
		wait   time.Duration
	}{"the application serves throughout": {true, Accepting}, "the application fails for a moment": {false, Passing}} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			f := Facts{Cause: Yield, EndpointDelay: delay, Ready: true, Serving: true, Answers: two}
			require.Equal(t, "b", l.Next(began, f).Says)
			f.Says, f.Unready = "b", true
			l.Next(began+tick, f)
			f.Serving = c.serves
			l.Next(began+2*tick, f)
			f.Serving, f.Answers = true, prepared
			closes := began + tick + delay
			require.True(t, l.Next(closes, f).Closed)
			f.Serving = false
			assert.Equal(t, closes+tick+c.wait, l.Next(closes+tick, f).Wake)
		})
	}
}

// Another program overwrites the next Lease after the holder has named its successor. The standbys
// whose offers are lost still exist.
func TestLostAnswersDoNotShortenTheLeave(t *testing.T) {
	for name, left := range map[string]api.Words{"no answer": none, "the successor's answer": {{Identity: "b", Say: api.Prepared}}} {
		t.Run(name, func(t *testing.T) {
			var l Leave
			f := Facts{Cause: Yield, EndpointDelay: delay, Ready: true, Serving: true, Answers: two}
			require.Equal(t, "b", l.Next(began, f).Says)
			f.Says, f.Unready, f.Answers = "b", true, left
			l.Next(began, f)
			require.True(t, l.Next(began+delay, f).Closed)
			f.Serving = false
			assert.Equal(t, began+delay+tick+Passing, l.Next(began+delay+tick, f).Wake)
		})
	}
}
