// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// atBarrier returns a command that runs the agent's role "barrier". The argument "opened" is the value of
// the annotation metaparticle.io/opened. Another pod holds the Lease of the barrier.
func atBarrier(t *testing.T, opened string, wait time.Duration) (*apiServer, *exec.Cmd) {
	t.Helper()
	const lease = "barrier.warm.run-1.0"
	s := newAPIServer(t, lease)
	s.Edit(lease, func(l *kube.Lease) {
		l.Holder, l.DurationSeconds, l.Annotations[api.OpenedAnnotation] = "other_1", 30, opened
	})
	args := api.BarrierArgs{
		Barrier: api.Barrier{Name: "warm", Size: 1}, Run: "run-1", LeaseDuration: 30 * time.Second, WaitAtMost: wait, Credentials: s.dir,
	}
	return s, s.command(t, args.Args()...)
}

func TestBarrierContainerSucceedsAtAnOpenBarrier(t *testing.T) {
	_, c := atBarrier(t, "1", 0)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Empty(t, string(out))
}

func TestBarrierContainerFailsAfterItsBoundedWait(t *testing.T) {
	_, c := atBarrier(t, "", time.Second)
	out, err := c.CombinedOutput()
	require.Error(t, err)
	assert.Equal(t, api.ExitWaited, c.ProcessState.ExitCode(), string(out))
	assert.Contains(t, string(out), "barrier warm=1: the pod has waited for as long as metaparticle.io/wait-at-most permits")
}

func TestStopSignalEndsTheBarrierContainer(t *testing.T) {
	s, c := atBarrier(t, "", time.Hour)
	require.NoError(t, c.Start())
	s.awaits(t, "get")
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.Error(t, c.Wait())
	assert.Equal(t, exitTerminated, c.ProcessState.ExitCode())
}

func TestBarrierContainerRefusesMalformedArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"need -barrier and -run": {"-barrier=warm=1"},
		"write a name":           {"-barrier=warm"},
		"is not between":         {"-barrier=warm=1", "-run=a", "-lease-duration=1s"},
		"unexpected arguments":   {"-barrier=warm=1", "-run=a", "-lease-duration=30s", "more"},
	} {
		out, err := exec.CommandContext(t.Context(), "agent", append([]string{api.BarrierRole}, args...)...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, want)
		assert.Equal(t, api.ExitUsage, exit.ExitCode(), want)
		assert.Contains(t, string(out), want)
	}
}
