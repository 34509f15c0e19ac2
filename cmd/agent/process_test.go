// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestRestartedAgentKnowsThatAnEarlierProcessRan(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		first, err := firstProcess(dir)
		require.NoError(t, err)
		assert.Equal(t, i == 0, first)
	}
}

// If a process went on without the file "begun", a later process would count as the first.
func TestAgentFailsIfSharedVolumesDirectoryIsMissing(t *testing.T) {
	_, err := firstProcess(t.TempDir() + "/missing")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestStopSignalEndsAgentThatAwaitsAnotherAgent(t *testing.T) {
	dir := t.TempDir()
	lock, err := host.Lock(t.Context(), filepath.Join(dir, gate.LockName), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer lock.Close()
	stop := make(chan struct{})
	close(stop)
	a := api.DefaultLocalArgs()
	a.Containers, a.RunDir, a.Install = []string{"app"}, dir, ""
	_, err = openLeash(t.Context(), a, stop, "boot", slog.New(slog.DiscardHandler))
	assert.ErrorIs(t, err, context.Canceled)
}

func TestAgentRemembersTheBootsOfItsVolume(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	assert.Equal(t, []string{"boot-1"}, noteBoot(dir, "boot-1", log))
	assert.Equal(t, []string{"boot-1"}, noteBoot(dir, "boot-1", log))
	assert.Equal(t, []string{"boot-1", "boot-2"}, noteBoot(dir, "boot-2", log))
	require.NoError(t, os.Truncate(filepath.Join(dir, "boots"), 10)) // a crash has removed the end of the last line
	assert.Equal(t, []string{"boot-1", "b", "boot-3"}, noteBoot(dir, "boot-3", log))
	assert.Equal(t, []string{"boot-1", "b", "boot-3", "boot-4"}, noteBoot(dir, "boot-4", log))
}

func TestAgentWorksThoughItsBootStaysUnnoted(t *testing.T) {
	assert.Equal(t, []string{"boot-1"}, noteBoot(t.TempDir()+"/missing", "boot-1", slog.New(slog.DiscardHandler)))
}
