// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func table(t *testing.T, text string) *Table {
	t.Helper()
	file := filepath.Join(t.TempDir(), "limits.txt")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	read, err := Read(file)
	require.NoError(t, err)
	return read
}

const example = "# Why.\nfolder long short\nagent 5 2\nagent/kube 1 0\n"

func TestCountAboveTheFoldersRecordedLimitIsReported(t *testing.T) {
	for name, c := range map[string]struct {
		counts Counts
		want   []string
	}{
		"within":              {Counts{"agent": {5, 2}}, nil},
		"above":               {Counts{"agent": {6, 2}}, []string{"agent: long is 6, the limit is 5"}},
		"below another row":   {Counts{"agent/kube": {2, 0}}, []string{"agent/kube: long is 2, the limit is 1"}},
		"two folders, summed": {Counts{"agent": {3, 0}, "agent/gate/x": {3, 0}}, []string{"agent: long is 6, the limit is 5"}},
		"no row":              {Counts{"api": {0, 1}}, []string{"api: short is 1, the limit is 0"}},
		"like another folder": {Counts{"agents": {1, 0}}, []string{"agents: long is 1, the limit is 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, table(t, example).Exceeded(c.counts, Sum))
		})
	}
}

func TestMaximumLimitAppliesToEachSubfolderSeparately(t *testing.T) {
	counts := Counts{"agent": {3, 0}, "agent/gate": {5, 2}}
	assert.Empty(t, table(t, example).Exceeded(counts, Max))
}

func TestFolderLimitFallsToCountButNeverRises(t *testing.T) {
	limits := table(t, example)
	limits.Lower(Counts{"agent": {9, 1}}, Sum)
	file := filepath.Join(t.TempDir(), "limits.txt")
	require.NoError(t, limits.Write(file))
	again, err := Read(file)
	require.NoError(t, err)
	assert.Equal(t, map[string][]int{"agent": {5, 1}, "agent/kube": {0, 0}}, again.rows)
	assert.Equal(t, []string{"# Why.\n"}, again.comments)
}

func TestSplittingLimitTableGivesEachFolderARow(t *testing.T) {
	limits := table(t, example)
	limits.Split(Counts{"agent": {0, 0}, "agent/claim": {0, 0}, "api": {0, 0}})
	assert.Equal(t, map[string][]int{"agent": {5, 2}, "agent/claim": {5, 2}, "api": {0, 0}}, limits.rows)
}

func TestMalformedLimitRowsAreRefused(t *testing.T) {
	for _, text := range []string{"folder a\nagent x\n", "folder a\nagent 1 2\n", "folder a\nagent 1\nagent 2\n"} {
		file := filepath.Join(t.TempDir(), "limits.txt")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		_, err := Read(file)
		assert.ErrorContains(t, err, "bad row")
	}
}
