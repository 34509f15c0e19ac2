// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/host"
)

func TestReplacedFileKeepsItsTextAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "note")
	require.NoError(t, host.Replace(path, []byte("old"), 0o600))
	require.NoError(t, host.Replace(path, []byte("new"), 0o600))
	require.NoError(t, os.Mkdir(path+host.Unfinished, 0o700))
	require.Error(t, host.Replace(path, []byte("third"), 0o600))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(text))
}

func TestIgnoreClosedKeepsOtherErrors(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	require.NoError(t, host.IgnoreClosed(file.Close()))
	require.NoError(t, host.IgnoreClosed(file.Close()))
	assert.ErrorIs(t, host.IgnoreClosed(os.ErrNotExist), os.ErrNotExist)
}
