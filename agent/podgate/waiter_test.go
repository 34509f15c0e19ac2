// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

func TestPodGateRefusesGrantsForUnknownShims(t *testing.T) {
	s := serve(t, t.TempDir())
	s.wait()
	s.next()
	require.ErrorIs(t, s.Grant("another", granting("h1", time.Hour)), gate.ErrUnknown)
}

// The kubelet may start the init container again before the agent learns of the end of the earlier one.
func TestOnlyTheLatestInitContainerIsTold(t *testing.T) {
	for range 20 { // the end of the earlier connection comes at any instant
		s := serve(t, t.TempDir())
		earlier := s.wait()
		r := s.next()
		latest := s.wait()
		_, err := earlier.ReadString('\n')
		require.Error(t, err)
		require.NoError(t, s.Grant(r.Shim, granting("h1", time.Hour)))
		word, err := latest.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, goOn, word)
		s.kill()
	}
}
