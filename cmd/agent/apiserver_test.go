// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// apiServer is an API server that the agent's program reaches by HTTPS.
type apiServer struct {
	*apiserver.Scripted
	host, port string
	// dir has the credentials of a pod.
	dir string
}

func newAPIServer(t *testing.T, leases ...string) *apiServer {
	t.Helper()
	s := &apiServer{Scripted: apiserver.NewScripted(t.Context(), leases...), dir: t.TempDir()}
	of := httptest.NewTLSServer(s)
	t.Cleanup(of.Close)
	t.Cleanup(of.CloseClientConnections)
	var err error
	s.host, s.port, err = net.SplitHostPort(of.Listener.Addr().String())
	require.NoError(t, err)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "token"), []byte("secret"), 0o600))
	return s
}

// command returns the agent's program with the arguments, as a process of the pod web-0.
func (s *apiServer) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "agent", args...)
	c.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST="+s.host, "KUBERNETES_SERVICE_PORT="+s.port,
		api.PodNamespaceEnv+"=shop", api.PodNameEnv+"=web-0", api.PodUIDEnv+"=u-1", api.PodIPEnv+"=10.0.0.1")
	return c
}

// awaits returns once the server has got a request with the verb.
func (s *apiServer) awaits(t *testing.T, verb string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.Requests(verb)) > 0 }, scrapeTimeout, scrapeTimeout/1000)
}
