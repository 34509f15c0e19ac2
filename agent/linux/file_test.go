// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

func TestReplacedFileKeepsItsTextAfterAFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "note")
	require.NoError(t, linux.Replace(path, []byte("old"), 0o600))
	require.NoError(t, linux.Replace(path, []byte("new"), 0o600))
	require.NoError(t, os.Mkdir(path+linux.Unfinished, 0o700))
	require.Error(t, linux.Replace(path, []byte("third"), 0o600))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(text))
}

func TestIgnoreClosedKeepsOtherErrors(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	require.NoError(t, linux.IgnoreClosed(file.Close()))
	require.NoError(t, linux.IgnoreClosed(file.Close()))
	assert.ErrorIs(t, linux.IgnoreClosed(os.ErrNotExist), os.ErrNotExist)
}
