// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// leashed starts an agent whose shims kill programs after a lost hold. The function also starts a
// shim, as PID 1 of a PID namespace. The shim's program ignores SIGTERM, and runs when leashed
// returns.
func (s *lockServer) leashed(t *testing.T) (port string, shim *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes a PID namespace")
	}
	dir := t.TempDir()
	port, output = freePort(t), new(bytes.Buffer)
	var said bytes.Buffer
	agent := s.start(t, port, &said, "-lease-duration=10s", "-containers=app", "-run-dir="+dir, "-install="+filepath.Join(dir, shimProgram))
	t.Cleanup(func() { _ = agent.Wait() }) // the end of the test's context has killed the agent
	require.NoError(t, exec.CommandContext(t.Context(), "agent", api.ReadyRole, port).Run(), "the local API listens")
	assert.FileExists(t, filepath.Join(dir, shimProgram))
	began := filepath.Join(dir, "began")
	require.NoError(t, syscall.Mkfifo(began, 0o600))
	shim = exec.CommandContext(t.Context(), "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", filepath.Join(dir, shimProgram), api.ExecRole,
		"-container=app", "-on-loss=restart", "-socket="+filepath.Join(dir, api.SocketName), "--",
		"sh", "-c", `trap "" TERM; echo began > `+began+`; while :; do sleep 1; done`)
	shim.Stdout, shim.Stderr = output, output
	require.NoError(t, shim.Start())
	text, err := os.ReadFile(began)
	require.NoError(t, err)
	require.Equal(t, "began\n", string(text))
	return port, shim, output
}

func TestShimKillsProgramWhoseHoldIsLost(t *testing.T) {
	s := newLockServer(t)
	port, shim, output := s.leashed(t)
	at := "http://localhost:" + port + "/v1/lock/a/holds"
	code, body := ask(t.Context(), t, http.MethodPost, at+"?heartbeat=1s")
	require.Equal(t, http.StatusCreated, code, body)
	answered := time.Now()
	good, _ := body["goodForSeconds"].(float64)
	err := shim.Wait() // the program sends no heartbeat
	require.Error(t, err)
	assert.Equal(t, api.ExitLost, shim.ProcessState.ExitCode(), output.String())
	renewals := 2 * time.Second // a renewal before the missed heartbeat prolongs the hold
	assert.LessOrEqual(t, time.Since(answered).Seconds(), good+renewals.Seconds())
}

func TestProgramOutlivesHoldsThatItGivesBack(t *testing.T) {
	s := newLockServer(t)
	port, shim, output := s.leashed(t)
	at := "http://localhost:" + port + "/v1/lock/a/holds"
	for range 3 {
		code, body := ask(t.Context(), t, http.MethodPost, at)
		require.Equal(t, http.StatusCreated, code, body)
		code, _ = ask(t.Context(), t, http.MethodDelete, at+"/"+body["hold"].(string))
		require.Equal(t, http.StatusNoContent, code)
	}
	require.NoError(t, shim.Process.Kill())
	require.Error(t, shim.Wait())
	assert.Equal(t, -1, shim.ProcessState.ExitCode(), "the test's signal ended the shim: %s", output.String())
}
