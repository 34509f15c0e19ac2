// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// A container has succeeded under the hold. Then the agent sends a further grant of that hold.
func TestHoldHasNoOutcomeWhileChildMayLive(t *testing.T) {
	s := New(Config{Containers: []string{"app", "helper"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Ended, Hold: "h", Completed: true, Connected: true})
	s.Learn(gate.Report{Shim: "2", Container: "helper", Phase: gate.Ended, Hold: "h", Failed: true, Connected: true})
	completed, failed := s.Outcome("h")
	assert.True(t, completed && failed)
	s.Grant("h", "3")
	completed, failed = s.Outcome("h")
	assert.False(t, completed || failed)

	completed, failed = New(Config{Containers: []string{"app"}}).Outcome("")
	assert.False(t, completed || failed)
}

func TestShimWaitingAfterItsChildHasDrained(t *testing.T) {
	drained := gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Hold: "h", Connected: true}
	for name, c := range map[string]struct {
		unbounded bool
		change    func(r *gate.Report)
		want      bool
	}{
		"waits":         {change: func(*gate.Report) {}, want: true},
		"start lock":    {change: func(*gate.Report) {}, unbounded: true},
		"another hold":  {change: func(r *gate.Report) { r.Hold = "g" }},
		"runs":          {change: func(r *gate.Report) { r.Phase = gate.Running }},
		"not connected": {change: func(r *gate.Report) { r.Connected = false }},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Containers: []string{"app"}, Unbounded: c.unbounded})
			r := drained
			c.change(&r)
			s.Learn(r)
			assert.Equal(t, c.want, s.Drained("h"))
		})
	}
}

func TestOnlyShimThatCanUseGrantIsGrantable(t *testing.T) {
	waits := gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Connected: true}
	for name, change := range map[string]func(r *gate.Report){
		"not connected":                func(r *gate.Report) { r.Connected = false },
		"silent":                       func(r *gate.Report) { r.Silent = true },
		"its child had the same hold":  func(r *gate.Report) { r.Hold = "h" },
		"its child has another hold":   func(r *gate.Report) { r.Phase, r.Hold = gate.Running, "g" },
		"an earlier shim has the hold": func(r *gate.Report) { r.Unproven = "h" },
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Containers: []string{"app"}})
			s.Learn(waits)
			require.Len(t, s.Grantable("h"), 1)
			r := waits
			change(&r)
			s.Learn(r)
			assert.Empty(t, s.Grantable("h"))
			assert.False(t, s.Running("h"))
		})
	}
	t.Run("start lock", func(t *testing.T) {
		s := New(Config{Containers: []string{"app"}, Unbounded: true})
		r := waits
		r.Unproven = "h"
		s.Learn(r)
		assert.Len(t, s.Grantable("h"), 1, "an earlier shim causes no doubt")
	})
}

func TestDisconnectedShimSupersedesNoShim(t *testing.T) {
	s := New(Config{Containers: []string{"app"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Running, Hold: "h", Began: 1, Connected: true})
	s.Learn(gate.Report{Shim: "2", Container: "app", Phase: gate.Waiting, Began: 2})
	assert.Empty(t, s.Superseded())
	s.Learn(gate.Report{Shim: "2", Container: "app", Phase: gate.Waiting, Began: 2, Connected: true})
	assert.Len(t, s.Superseded(), 1)
}
