// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// lockServer is an API server with the Lease of one lock.
type lockServer struct{ *apiServer }

func newLockServer(t *testing.T) *lockServer { return &lockServer{newAPIServer(t, "lock.a")} }

// holder returns the holder in the Lease.
func (s *lockServer) holder() string { return s.Lease("lock.a").Holder }

// freePort returns a port on which no process listens at 127.0.0.1. This port is below the range from
// which the kernel chooses ports for other programs.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		port := strconv.Itoa(28_000 + rand.IntN(2_000))
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+port)
		if err == nil {
			l.Close()
			return port
		}
		require.ErrorIs(t, err, syscall.EADDRINUSE)
	}
}

// start starts an agent that serves the local API at the port. The agent also gets the arguments
// in "more".
func (s *lockServer) start(t *testing.T, port string, output *bytes.Buffer, more ...string) *exec.Cmd {
	t.Helper()
	args := append([]string{api.LocalRole, "-claims=lock/a", "-lease-duration=30s", "-port=" + port, "-credentials=" + s.dir}, more...)
	c := s.command(t, args...)
	c.Stdout, c.Stderr = output, output
	require.NoError(t, c.Start())
	return c
}

func ask(ctx context.Context, t *testing.T, method, url string) (code int, body map[string]any) {
	t.Helper()
	return askBy(ctx, t, http.DefaultClient, method, url)
}

// bySocket returns a client that connects to the socket, whatever the host of the URL.
func bySocket(t *testing.T, socket string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func askBy(ctx context.Context, t *testing.T, client *http.Client, method, url string) (code int, body map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	require.NoError(t, err)
	answer, err := client.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		require.NoError(t, json.NewDecoder(answer.Body).Decode(&body))
	}
	return answer.StatusCode, body
}

func TestLocalAPIAgentHoldsAndReleasesASlot(t *testing.T) {
	s, port := newLockServer(t), freePort(t)
	var output bytes.Buffer
	c := s.start(t, port, &output)
	require.NoError(t, exec.CommandContext(t.Context(), "agent", api.ReadyRole, port).Run(), "the local API listens")
	for _, host := range []string{"127.0.0.1", "localhost"} {
		at := fmt.Sprintf("http://%s/v1/lock/a/holds", net.JoinHostPort(host, port))
		code, body := ask(t.Context(), t, http.MethodPost, at)
		require.Equal(t, http.StatusCreated, code, body)
		assert.Equal(t, "web-0_u-1", s.holder())
		code, beat := ask(t.Context(), t, http.MethodPut, at+"/"+body["hold"].(string))
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "held", beat["state"])
		code, _ = ask(t.Context(), t, http.MethodDelete, at+"/"+body["hold"].(string))
		assert.Equal(t, http.StatusNoContent, code)
		assert.Eventually(t, func() bool { return s.holder() == "" }, scrapeTimeout, scrapeTimeout/1000)
	}
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.NoError(t, c.Wait(), output.String())
}

func TestSocketServesTheLocalAPIWithoutAPort(t *testing.T) {
	s, socket := newLockServer(t), filepath.Join(t.TempDir(), "api.sock")
	require.NoError(t, os.WriteFile(socket, nil, 0o600)) // an earlier agent left its socket
	var output bytes.Buffer
	c := s.start(t, "0", &output, "-socket="+socket)
	require.NoError(t, exec.CommandContext(t.Context(), "agent", api.ReadyRole, socket).Run(), "the local API listens")
	client := bySocket(t, socket)
	code, body := askBy(t.Context(), t, client, http.MethodPost, "http://localhost/v1/lock/a/holds")
	require.Equal(t, http.StatusCreated, code, body)
	code, body = askBy(t.Context(), t, client, http.MethodPost, "http://web-0.shop/v1/lock/a/holds")
	assert.Equal(t, http.StatusForbidden, code)
	assert.Equal(t, "ForeignHost", body["reason"])
	info, err := os.Stat(socket)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(anyUser), info.Mode().Perm(), "a program may have any user")
	assert.Empty(t, listeners(t, c.Process.Pid), "each process of the node could call")
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.NoError(t, c.Wait(), output.String())
}

// listeners returns the TCP sockets on which the process listens.
func listeners(t *testing.T, pid int) (found []string) {
	t.Helper()
	own := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/", pid)
	descriptors, err := os.ReadDir(dir + "fd")
	require.NoError(t, err)
	for _, descriptor := range descriptors {
		target, err := os.Readlink(dir + "fd/" + descriptor.Name())
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	require.NotEmpty(t, own)
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		text, err := os.ReadFile(dir + table)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			// The fields of a line are the number, both addresses, the state (0A means
			// listening), and, further right, the inode.
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == "0A" && own[fields[9]] {
				found = append(found, fields[1])
			}
		}
	}
	return found
}

func TestLocalAPIPortAndSocketServeSameHolds(t *testing.T) {
	s, port, socket := newLockServer(t), freePort(t), filepath.Join(t.TempDir(), "api.sock")
	var output bytes.Buffer
	c := s.start(t, port, &output, "-socket="+socket)
	require.NoError(t, exec.CommandContext(t.Context(), "agent", api.ReadyRole, port).Run(), "the local API listens")
	code, body := askBy(t.Context(), t, bySocket(t, socket), http.MethodPost, "http://localhost/v1/lock/a/holds")
	require.Equal(t, http.StatusCreated, code, body)
	code, _ = ask(t.Context(), t, http.MethodPut, fmt.Sprintf("http://localhost:%s/v1/lock/a/holds/%s", port, body["hold"]))
	assert.Equal(t, http.StatusOK, code)
	assert.NotEmpty(t, listeners(t, c.Process.Pid))
	require.NoError(t, c.Process.Signal(syscall.SIGTERM))
	require.NoError(t, c.Wait(), output.String())
}

// The Lease is free, so only the note beside the socket shows that an earlier process has run.
func TestRestartedAgentTellsSyncClientsOfTheirLoss(t *testing.T) {
	s, socket := newLockServer(t), filepath.Join(t.TempDir(), "api.sock")
	for _, status := range []int{http.StatusOK, http.StatusNotFound} {
		var output bytes.Buffer
		c := s.start(t, "0", &output, "-socket="+socket)
		require.NoError(t, exec.CommandContext(t.Context(), "agent", api.ReadyRole, socket).Run(), "the local API listens")
		code, _ := askBy(t.Context(), t, bySocket(t, socket), http.MethodGet, "http://localhost/locks/a")
		assert.Equal(t, status, code)
		require.NoError(t, c.Process.Kill())
		assert.Error(t, c.Wait())
	}
}

func TestLocalAPIPortAnswersWhileSocketIsFull(t *testing.T) {
	port, socket := freePort(t), filepath.Join(t.TempDir(), "api.sock")
	a := api.DefaultLocalArgs()
	a.Port, _ = strconv.Atoi(port)
	a.Socket = socket
	require.NoError(t, listenLocal(t.Context(), a, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })))
	for range mostPrograms {
		c, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		require.NoError(t, err)
		defer c.Close()
	}
	one, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	require.NoError(t, err)
	defer one.Close()
	_, err = one.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "one connection too many is refused")
	code, _ := ask(t.Context(), t, http.MethodGet, "http://localhost:"+port)
	assert.Equal(t, http.StatusNoContent, code)
}

func TestLocalAPIAgentFailsIfPortIsTaken(t *testing.T) {
	s := newLockServer(t)
	var output bytes.Buffer
	c := s.start(t, s.port, &output)
	require.Error(t, c.Wait())
	assert.Equal(t, 1, c.ProcessState.ExitCode())
	assert.Contains(t, output.String(), "serve the local API: listen tcp 127.0.0.1:"+s.port)
}

func TestLocalAPIAgentRefusesMalformedArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"no -claims":           {api.LocalRole},
		"is no claim of":       {api.LocalRole, "-claims=once/a"},
		"a barrier needs -run": {api.LocalRole, "-claims=barrier/a=2"},
		"is not between":       {api.LocalRole, "-claims=lock/a", "-lease-duration=1s"},
		"neither -port nor":    {api.LocalRole, "-claims=lock/a", "-port=0"},
		"unexpected arguments": {api.LocalRole, "-claims=lock/a", "more"},
		"usage: agent ready":   {api.ReadyRole, "port"},
	} {
		c := exec.CommandContext(t.Context(), "agent", args...)
		c.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=1", api.PodNamespaceEnv+"=shop",
			api.PodNameEnv+"=a", api.PodUIDEnv+"=u")
		out, err := c.CombinedOutput()
		require.Error(t, err, want)
		assert.Contains(t, string(out), want)
	}
}

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
