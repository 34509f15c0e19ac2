// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// done sets the done keys of a once claim.
func (s *apiServer) done(keys string) {
	s.Edit("once.schema", func(l *kube.Lease) { l.Annotations[api.DoneAnnotation] = keys })
}

// awaiting runs the agent's role "after", and returns once its watch has begun. Key 7 is not done.
func awaiting(t *testing.T, output *bytes.Buffer) (*apiServer, *exec.Cmd) {
	t.Helper()
	s := newAPIServer(t, "once.schema")
	s.done("6")
	args := api.ConditionArgs{Conditions: []api.Condition{{Lease: "once.schema", Key: "7"}}, Credentials: s.dir}
	c := s.command(t, args.Args()...)
	c.Stdout, c.Stderr = output, output
	require.NoError(t, c.Start())
	s.awaits(t, "watch")
	return s, c
}

func TestConditionContainerSucceedsWhenKeyIsDone(t *testing.T) {
	var output bytes.Buffer
	s, c := awaiting(t, &output)
	s.done("6,7")
	require.NoError(t, c.Wait(), output.String())
	assert.Empty(t, output.String(), "a short wait says nothing")
}

func TestStopSignalEndsTheConditionContainer(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		var output bytes.Buffer
		_, c := awaiting(t, &output)
		require.NoError(t, c.Process.Signal(signal))
		assert.Error(t, c.Wait())
		assert.Equal(t, 143, c.ProcessState.ExitCode(), output.String())
		assert.Empty(t, output.String())
	}
}

func TestConditionContainerRefusesMalformedArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"no -conditions":       {},
		"lacks a key":          {"-conditions=once.schema"},
		"is no condition":      {"-conditions=semaphore.a.0"},
		"unexpected arguments": {"-conditions=lock.a", "more"},
	} {
		out, err := exec.CommandContext(t.Context(), "agent", append([]string{api.AfterRole}, args...)...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, want)
		assert.Equal(t, api.ExitUsage, exit.ExitCode(), want)
		assert.Contains(t, string(out), want)
	}
}

func TestConditionContainerNeedsAPIServersAddress(t *testing.T) {
	c := exec.CommandContext(t.Context(), "agent", api.AfterRole, "-conditions=lock.a")
	c.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST=", api.PodNamespaceEnv+"=shop")
	out, err := c.CombinedOutput()
	require.Error(t, err)
	assert.Equal(t, 1, c.ProcessState.ExitCode())
	assert.Contains(t, string(out), "metaparticle: kube: no address of the API server")
}

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
