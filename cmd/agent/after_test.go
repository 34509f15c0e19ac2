// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// schemaLease is the Lease of a once claim, as a format string. The two arguments of the format are
// the resource version and the done keys.
const schemaLease = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"once.schema","namespace":"shop",` +
	`"uid":"u","resourceVersion":"%s","annotations":{"metaparticle.io/done":"%s"}},"spec":{"holderIdentity":"unknown"}}`

// afterServer serves the Lease of [schemaLease] to one pod. A read shows that the key 7 is not
// done. The watch shows that this key is done once the channel "finished" is closed.
type afterServer struct {
	*httptest.Server
	credentials string
	watched     chan struct{} // closed when the watch has begun
	finished    chan struct{}
}

func newAfterServer(t *testing.T) *afterServer {
	t.Helper()
	s := &afterServer{credentials: t.TempDir(), watched: make(chan struct{}), finished: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/coordination.k8s.io/v1/namespaces/shop/leases/once.schema", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, schemaLease, "5", "6")
	})
	mux.HandleFunc("GET /apis/coordination.k8s.io/v1/namespaces/shop/leases", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("resourceVersion") != "5" || r.FormValue("fieldSelector") != "metadata.name=once.schema" {
			http.Error(w, r.URL.String(), http.StatusBadRequest)
			return
		}
		w.(http.Flusher).Flush()
		close(s.watched)
		select {
		case <-s.finished:
			fmt.Fprintf(w, `{"type":"MODIFIED","object":`+schemaLease+"}\n", "6", "6,7")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case <-r.Context().Done():
		}
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(s.credentials, "ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(s.credentials, "token"), []byte("secret"), 0o600))
	return s
}

// start runs the agent's role "after" against the server, and returns once the watch has begun.
func (s *afterServer) start(t *testing.T, output *bytes.Buffer) *exec.Cmd {
	t.Helper()
	args := api.ConditionArgs{Conditions: []api.Condition{{Lease: "once.schema", Key: "7"}}, Credentials: s.credentials}
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), "agent", args.Args()...)
	c.Stdout, c.Stderr = output, output
	c.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port,
		api.PodNamespaceEnv+"=shop", api.PodNameEnv+"=web-0", api.PodUIDEnv+"=u-1")
	require.NoError(t, c.Start())
	<-s.watched
	return c
}

func TestConditionContainerSucceedsWhenKeyIsDone(t *testing.T) {
	s := newAfterServer(t)
	var output bytes.Buffer
	c := s.start(t, &output)
	close(s.finished)
	require.NoError(t, c.Wait(), output.String())
	assert.Empty(t, output.String(), "a short wait says nothing")
}

func TestStopSignalEndsTheConditionContainer(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := newAfterServer(t)
		var output bytes.Buffer
		c := s.start(t, &output)
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
