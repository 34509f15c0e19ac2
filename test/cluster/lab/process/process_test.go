// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

func TestStartTimeIsFoundForRunningProcessesOnly(t *testing.T) {
	stat := "42 (a) b (c)) S 1 " + strings.Repeat("0 ", 17) + "98765 1 2 3"
	start, err := parseStartTime(stat)
	require.NoError(t, err)
	assert.Equal(t, "98765", start)

	for _, dead := range []string{") Z ", ") X "} {
		_, err = parseStartTime(strings.Replace(stat, ") S ", dead, 1))
		assert.ErrorIs(t, err, os.ErrNotExist, "a dead process does not run")
	}
	_, err = parseStartTime("42 (a) S 1")
	assert.Error(t, err)
}

func TestRecordedPIDIsIgnoredIfStartTimeDiffers(t *testing.T) {
	l := &state.Lab{Root: t.TempDir()}
	require.NoError(t, os.Mkdir(l.Path("run"), 0o755))
	assert.Zero(t, PID(l, "n1", "kubelet"))

	self, err := StartTime(os.Getpid())
	require.NoError(t, err)
	for record, want := range map[string]int{self: os.Getpid(), "1": 0} {
		line := []byte(strings.Join([]string{strconv.Itoa(os.Getpid()), record}, " "))
		require.NoError(t, os.WriteFile(l.RecordFile("n1", "kubelet"), line, 0o600))
		assert.Equal(t, want, PID(l, "n1", "kubelet"))
	}
}
