// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

func TestStoppedClusterRefusesFaultsAndImagePushes(t *testing.T) {
	c, err := Open(t.TempDir())
	require.NoError(t, err)
	assert.ErrorIs(t, c.Cut(t.Context(), "n1"), state.ErrDown)
	assert.ErrorIs(t, c.Kill(t.Context(), "n1", "kubelet"), state.ErrDown)
	_, err = c.Push(t.Context(), "image.tar", "demo/image:1")
	assert.ErrorIs(t, err, state.ErrDown)
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.False(t, status.Up)
}
