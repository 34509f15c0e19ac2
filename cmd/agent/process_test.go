// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
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
	lock, err := linux.Lock(t.Context(), filepath.Join(dir, gate.LockName), slog.New(slog.DiscardHandler))
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

// In a pod with the socket of the local API, programs may write to the directory of the notes.
func TestHostileNoteOfBootsNeverStopsTheAgent(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("token"), 0o600))
	for what, put := range map[string]func(string) error{
		"a pipe":           func(name string) error { return syscall.Mkfifo(name, 0o666) },
		"a link to a file": func(name string) error { return os.Symlink(secret, name) },
		"a link to zeros":  func(name string) error { return os.Symlink("/dev/zero", name) },
		"a directory":      func(name string) error { return os.Mkdir(name, 0o777) },
		"a huge file":      func(name string) error { return errors.Join(os.WriteFile(name, nil, 0o666), os.Truncate(name, 1<<40)) },
	} {
		dir := t.TempDir()
		require.NoError(t, put(filepath.Join(dir, "boots")))
		noted := make(chan []string, 1)
		go func() { noted <- noteBoot(dir, "boot-1", slog.New(slog.DiscardHandler)) }()
		select {
		case boots := <-noted:
			assert.Contains(t, boots, "boot-1", what)
			assert.NotContains(t, boots, "token", what)
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the agent waits", what)
		}
	}
	text, err := os.ReadFile(secret)
	require.NoError(t, err)
	assert.Equal(t, "token", string(text), "the agent writes through no link")
}

func TestCourseOutlivesTheAgentProcess(t *testing.T) {
	for _, c := range []agent.Course{agent.CourseRun, agent.CourseSkip} {
		dir := t.TempDir()
		assert.Empty(t, courseNote(dir).read())
		require.NoError(t, courseNote(dir).write(c))
		assert.Equal(t, c, courseNote(dir).read())
	}
}

func TestPodWithUnreadableCourseNeverSkips(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "ski", "skip\x00"} {
		require.NoError(t, os.WriteFile(courseNote(dir).path(), []byte(text), 0o600))
		assert.Equal(t, agent.CourseRun, courseNote(dir).read(), "%q", text)
	}
}

func TestCourseCannotBeStoredWithoutTheVolume(t *testing.T) {
	assert.ErrorContains(t, courseNote(t.TempDir()+"/none").write(agent.CourseRun), "note the course")
}
