// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

func TestClusterTemplatesUseOnlyKnownValues(t *testing.T) {
	l := &state.Lab{Root: "/lab", Saved: state.Saved{Workers: 1}}
	n, err := l.Node("n1")
	require.NoError(t, err)
	entries, err := templateFiles.ReadDir("templates")
	require.NoError(t, err)
	for _, entry := range entries {
		data, err := Render(entry.Name(), Values(l, n))
		require.NoError(t, err, entry.Name())
		assert.NotContains(t, string(data), "no value", entry.Name())
		assert.NotContains(t, string(data), "{{", entry.Name())
	}
}
