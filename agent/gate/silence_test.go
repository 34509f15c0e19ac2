// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A shim beats once a second, and is silent after 2.5 s without a message. Each row has the calls of
// the listener. Each call has its instant, and the instant of the shim's last message. The results
// of the call are the wait until the next call, and whether the shim is silent.
func TestShimIsSilentOnlyWhileTheAgentListens(t *testing.T) {
	type call struct {
		now, heard, wait time.Duration
		silent           bool
	}
	const s, ms = time.Second, time.Millisecond
	for name, calls := range map[string][]call{
		"a shim that beats": {
			{10 * s, 10 * s, 2500 * ms, false},
			{12500 * ms, 12 * s, 2 * s, false},
			{14500 * ms, 14 * s, 2 * s, false},
		},
		"a shim that stops to beat": {
			{10 * s, 10 * s, 2500 * ms, false},
			{12500 * ms, 11 * s, 1 * s, false},
			{13500 * ms, 11 * s, 500 * ms, false},
			{14 * s, 11 * s, 2500 * ms, true},
		},
		"a message that the agent reads late": {
			{10 * s, 10 * s, 2500 * ms, false},
			{12500 * ms, 10 * s, 500 * ms, false},
			{13 * s, 12600 * ms, 2100 * ms, false},
			{15100 * ms, 15 * s, 2400 * ms, false},
		},
		"an agent that is suspended": {
			{10 * s, 10 * s, 2500 * ms, false},
			{13100 * ms, 10 * s, 2500 * ms, false},
			{15600 * ms, 13100 * ms, 500 * ms, false},
			{16100 * ms, 13100 * ms, 2500 * ms, true},
		},
		"an agent that is suspended before it is sure": {
			{10 * s, 10 * s, 2500 * ms, false},
			{12500 * ms, 10 * s, 500 * ms, false},
			{13501 * ms, 10 * s, 2500 * ms, false},
			{16001 * ms, 13501 * ms, 500 * ms, false},
			{16501 * ms, 13501 * ms, 2500 * ms, true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &peer{conn: struct{ Conn }{}, heard: calls[0].heard}
			ledger, err := openLedger(forgetful{}, "boot", false)
			require.NoError(t, err)
			r := &register{peers: []*peer{p, {}}, ledger: ledger, outbox: newOutbox()}
			l := &listener{silence: silence, grace: silence / 5}
			for _, c := range calls {
				p.heard = c.heard
				assert.Equal(t, c.wait, l.listen(c.now, r), "at %v", c.now)
				assert.Equal(t, c.silent, p.report.Silent, "at %v", c.now)
			}
			assert.Equal(t, calls[len(calls)-1].silent, r.outbox.last[""].Silent, "the report says so")
		})
	}
}
