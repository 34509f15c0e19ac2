// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// The method "ended" waits for the last state of the shim, and returns that state.
func (a *fakeAgent) ended() gate.Report {
	a.t.Helper()
	st := a.next()
	for st.Phase != gate.Ended {
		st = a.next()
	}
	return st
}

// If the webhook has not read an image, almost any signal may be the stop signal of that image.
// SIGCONT is never a stop signal.
func TestExitAfterPossibleStopSignalNeverMeansSuccess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal    unix.Signal
		completed bool
	}{
		"SIGTERM": {unix.SIGTERM, false}, "SIGINT": {unix.SIGINT, false}, "SIGQUIT": {unix.SIGQUIT, false},
		"SIGUSR1": {unix.SIGUSR1, false}, "SIGWINCH": {unix.SIGWINCH, false}, "SIGCONT": {unix.SIGCONT, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := held(t, time.Hour, "sh", "-c", "trap 'exit 0' TERM INT QUIT USR1 WINCH CONT; echo deaf; while :; do sleep 1000 & wait; done")
			a.deaf()
			require.NoError(t, a.cmd.Process.Signal(c.signal))
			assert.Equal(t, c.completed, a.ended().Completed)
			require.NoError(t, a.Close())
			a.exits(0)
		})
	}
}

func TestExitAfterStopSignalNeverMeansFailure(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken")
	require.NoError(t, os.WriteFile(broken, []byte("\x7fELF"), 0o755)) //nolint:gosec // a program must be executable
	for name, c := range map[string]struct {
		command []string
		asked   bool
		code    int
		failed  bool
	}{
		"exit code":      {[]string{"sh", "-c", "exit 3"}, false, 3, true},
		"signal":         {[]string{"sh", "-c", "kill -9 $$"}, false, 137, true},
		"broken program": {[]string{broken}, false, 126, true},
		"success":        {[]string{"true"}, false, 0, false},
		"stop":           {[]string{"sh", "-c", "trap 'exit 3' TERM; echo deaf; while :; do sleep 1000 & wait; done"}, true, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := supervised(t, os.Stderr, c.command...)
			a.grants("h1", time.Hour)
			if c.asked {
				a.until(gate.Running, "h1")
				a.deaf()
				require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			}
			assert.Equal(t, c.failed, a.ended().Failed)
			require.NoError(t, a.Close())
			a.exits(c.code)
		})
	}
}

// The agent's container may be restarting while the work succeeds.
func TestShimAwaitsNewAgentAfterItsChildSucceeded(t *testing.T) {
	t.Setenv("GATE_RECORDS", "yes")
	gone := filepath.Join(t.TempDir(), "done")
	require.NoError(t, unix.Mkfifo(gone, 0o600))
	a := held(t, time.Hour, "sh", "-c", `read x < "$0"`, gone)
	socket := strings.TrimSuffix(a.listener.Addr().String(), ".new")
	require.NoError(t, a.listener.Close())
	require.NoError(t, a.Close())
	require.NoError(t, os.WriteFile(gone, []byte("\n"), 0o600))
	require.Eventually(t, func() bool {
		processes, err := linux.ReadProcesses()
		return err == nil && len(linux.Descendants(processes, a.cmd.Process.Pid)) == 0
	}, patience, time.Millisecond)
	l, err := linux.Socket("unixpacket", socket, 0o777)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	a.listener = l
	a.accept()
	assert.True(t, a.ended().Completed)
	require.NoError(t, a.Close())
	a.exits(0)
}
