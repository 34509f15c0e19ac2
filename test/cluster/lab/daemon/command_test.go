// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

func TestEveryClusterComponentHasAStartCommand(t *testing.T) {
	l := &state.Lab{Root: "/lab", Saved: state.Saved{Workers: 1}}
	for _, name := range []string{state.ControlPlane, "n1"} {
		n, err := l.Node(name)
		require.NoError(t, err)
		for _, component := range Components(name) {
			assert.NotEmpty(t, Command(l, n, component), component)
		}
	}
}
