// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// The method "delays" sends a grant by which the shim holds back the kubelet's stop signal for
// the delay.
func (a *fakeAgent) delays(within, delay time.Duration) {
	a.t.Helper()
	require.NoError(a.t, a.send(gate.Order{Grant: &gate.Grant{
		Hold: "h1", BootID: a.boot, Deadline: linux.Now() + within, Drain: time.Second, Kill: kill, StopDelay: delay,
	}}))
}

// The method "ends" waits until the application has ended, and returns how long that took.
func (a *fakeAgent) ends() time.Duration {
	a.t.Helper()
	began := linux.Now()
	a.until(gate.Ended, "h1")
	require.NoError(a.t, a.Close())
	a.exits(5)
	return linux.Now() - began
}

func TestShimTakesStopSignalDelayFromTheGrant(t *testing.T) {
	for name, c := range map[string]struct {
		within, delay time.Duration
		then          func(a *fakeAgent)
		least         time.Duration
	}{
		"until the delay is over":                        {time.Hour, 300 * time.Millisecond, func(*fakeAgent) {}, 290 * time.Millisecond},
		"until the bound of a later grant":               {time.Hour, 200 * time.Millisecond, func(a *fakeAgent) { a.delays(time.Hour, 700*time.Millisecond) }, 400 * time.Millisecond},
		"until a grant without one":                      {time.Hour, time.Hour, func(a *fakeAgent) { a.delays(time.Hour, 0) }, 0},
		"until a drain":                                  {time.Hour, time.Hour, func(a *fakeAgent) { a.drains("h1") }, 0},
		"until a second stop signal":                     {time.Hour, time.Hour, func(a *fakeAgent) { require.NoError(a.t, a.cmd.Process.Signal(unix.SIGTERM)) }, 0},
		"until the drain of a grant that is not renewed": {kill + 1500*time.Millisecond, time.Hour, func(*fakeAgent) {}, 0},
		"not at all without a delay":                     {time.Hour, 0, func(*fakeAgent) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := supervised(t, os.Stderr, "sh", "-c", "trap 'exit 5' TERM; echo deaf; while :; do sleep 1000 & wait; done")
			a.delays(c.within, c.delay)
			a.until(gate.Running, "h1")
			a.deaf()
			require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			for c.delay != 0 && !a.next().Stopping {
			}
			c.then(a)
			assert.GreaterOrEqual(t, a.ends(), c.least)
		})
	}
}

func TestShimAwaitsTheAgentsAnswerAfterPreStop(t *testing.T) {
	for name, c := range map[string]struct {
		delay time.Duration
		then  func(a *fakeAgent)
		least time.Duration
	}{
		"the agent ends the delay": {time.Hour, func(a *fakeAgent) { a.delays(time.Hour, 0) }, 0},
		"the agent says nothing":   {time.Millisecond, func(*fakeAgent) {}, gate.Heard},
		"the agent is gone":        {time.Millisecond, func(a *fakeAgent) { require.NoError(a.t, a.Close()) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "hook")
			require.NoError(t, unix.Mkfifo(path, 0o600))
			t.Setenv("GATE_PRESTOP", path)
			a := supervised(t, os.Stderr, "sh", "-c", "trap 'exit 5' TERM; echo deaf; while :; do sleep 1000 & wait; done")
			a.delays(time.Hour, c.delay)
			a.until(gate.Running, "h1")
			a.deaf()
			require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			for !a.next().PreStop {
			}
			began := linux.Now()
			require.NoError(t, os.WriteFile(path, []byte("\n"), 0))
			for a.next().PreStop {
			}
			c.then(a)
			if name == "the agent is gone" {
				a.exits(5)
				return
			}
			a.ends()
			assert.GreaterOrEqual(t, linux.Now()-began, c.least)
		})
	}
}
