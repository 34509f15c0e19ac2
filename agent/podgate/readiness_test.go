// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func TestReadinessGateDrainsUntilUnreadyStatusIsStored(t *testing.T) {
	r := NewReadiness(linux.Now)
	last := func() gate.Report { return r.box.last }
	id := r.report.Shim
	r.Shown(true) // an earlier agent process stored that the pod is Ready
	assert.Empty(t, last(), "nothing is known")
	r.Shown(false)
	assert.Equal(t, gate.Waiting, last().Phase, "the application runs anyway")
	assert.True(t, last().Connected)

	require.NoError(t, r.Grant(id, granting("h1", time.Hour)))
	assert.Equal(t, gate.Running, last().Phase)
	assert.Equal(t, "h1", last().Hold)
	r.Shown(false) // the API server stored this status before the grant
	assert.Equal(t, gate.Running, last().Phase)
	r.Shown(true)
	require.NoError(t, r.Grant(id, granting("h1", 2*time.Hour)))
	require.ErrorIs(t, r.Grant(id, granting("h2", time.Hour)), gate.ErrOver)

	require.NoError(t, r.Drain(id, "Yielded", 0))
	assert.Equal(t, gate.Draining, last().Phase)
	r.Shown(true) // the agent sent this status before the drain
	assert.Equal(t, gate.Draining, last().Phase)
	r.Shown(false)
	assert.Equal(t, gate.Waiting, last().Phase)
	assert.Equal(t, "h1", last().Hold, "that hold is over")
	require.ErrorIs(t, r.Grant(id, granting("h1", time.Hour)), gate.ErrOver)
	require.NoError(t, r.Drain(id, "Yielded", 0))
	assert.Equal(t, gate.Waiting, last().Phase)
	require.NoError(t, r.Grant(id, granting("h2", time.Hour)))
	assert.Equal(t, gate.Running, last().Phase)
}

func TestReadinessStandInRejectsOrdersForUnknownShims(t *testing.T) {
	r := NewReadiness(linux.Now)
	require.ErrorIs(t, r.Grant("another", granting("h1", time.Hour)), gate.ErrUnknown)
	require.ErrorIs(t, r.Drain("another", "", 0), gate.ErrUnknown)
}

func TestReadinessStandInDeliversItsLastReport(t *testing.T) {
	r := NewReadiness(linux.Now)
	id := r.report.Shim
	r.Shown(false)
	go func() { _ = r.Run(t.Context()) }()
	require.NoError(t, r.Grant(id, granting("h1", time.Hour)))
	require.NoError(t, r.Drain(id, "", 0))
	r.Shown(false)
	// The channel may lose earlier reports, but always delivers the last report.
	var last gate.Report
	for last.Phase != gate.Waiting || last.Hold != "h1" {
		select {
		case last = <-r.Reports():
		case <-time.After(patience):
			require.FailNow(t, "no report", "%v", last)
		}
	}
}
