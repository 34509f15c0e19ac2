// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Any program of a gated container can send messages as a shim.
func TestFalseShimsNeverFillTheAgentsMemory(t *testing.T) {
	s := New(Config{Containers: []string{"app"}})
	s.Begin("h")
	s.Grant("h", "false")
	for i := range 1000 {
		hold := fmt.Sprint("hold-", i)
		for range 3 {
			s.Learn(gate.Report{Shim: "false", Container: "app", Phase: gate.Running, Hold: hold, Connected: true})
		}
		assert.True(t, s.Outstanding(hold))
		if i%2 == 0 {
			s.Learn(gate.Report{Shim: "false", Container: "app", Phase: gate.Waiting, Connected: true})
			assert.False(t, s.Outstanding(hold))
		}
	}
	assert.Equal(t, 2, len(s.outstanding), "the granted hold, and the hold of the last report") //nolint:testifylint // Len prints the map
	assert.True(t, s.Outstanding("h"), "a grant may still be on its way")
	for i := range 1000 {
		r := gate.Report{Shim: gate.ShimID(fmt.Sprint(i)), Container: fmt.Sprint("c-", i), Phase: gate.Running, Hold: "x", Connected: true}
		s.Learn(r)
		r.Dead = true
		s.Learn(r)
	}
	assert.False(t, s.Outstanding("x"))
	assert.Equal(t, 1, len(s.heard), "only gated containers count") //nolint:testifylint // Len prints the map
	assert.Equal(t, 1, len(s.claimed))                              //nolint:testifylint // Len prints the map
}

// A new agent process learns of a child by a report, and then sends the next grant of the same hold.
func TestGrantAfterAReportStaysOutstanding(t *testing.T) {
	s := New(Config{Containers: []string{"app"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Running, Hold: "h", Connected: true})
	s.Grant("h", "1")
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Running, Hold: "h", Connected: true})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Hold: "g", Connected: true})
	assert.True(t, s.Outstanding("h"))
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Hold: "h", Connected: true})
	assert.False(t, s.Outstanding("h"))
}
