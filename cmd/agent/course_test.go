// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent"
)

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
