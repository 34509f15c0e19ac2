// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// leaseAtBarrier is the first Lease of a barrier, as a format string. The argument of the
// format is the value of the annotation metaparticle.io/opened; empty while the barrier is not
// open.
const leaseAtBarrier = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"barrier.warm.run-1.0","namespace":"shop",` +
	`"uid":"u","resourceVersion":"5","annotations":{"metaparticle.io/opened":"%s"}},"spec":{"holderIdentity":"other_1","leaseDurationSeconds":30}}`

// atBarrier returns a command that runs the agent's role "barrier" against a fake API server. The
// argument "opened" is the value of the annotation metaparticle.io/opened on the server's Lease.
// Each read of the Lease sends a value to the channel "reads".
func atBarrier(t *testing.T, opened string, wait time.Duration) (c *exec.Cmd, reads <-chan struct{}) {
	t.Helper()
	read := make(chan struct{}, 1000)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("watch") != "" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprintf(w, leaseAtBarrier, opened)
		read <- struct{}{}
	}))
	t.Cleanup(s.Close)
	credentials := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(credentials, "token"), []byte("secret"), 0o600))
	args := api.BarrierArgs{
		Barrier: api.Barrier{Name: "warm", Size: 1}, Run: "run-1", LeaseDuration: 30 * time.Second, WaitAtMost: wait, Credentials: credentials,
	}
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	c = exec.CommandContext(t.Context(), "agent", args.Args()...)
	c.Env = append(os.Environ(), "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port,
		api.PodNamespaceEnv+"=shop", api.PodNameEnv+"=train-1", api.PodUIDEnv+"=u-1")
	return c, read
}

func TestBarrierContainerSucceedsAtAnOpenBarrier(t *testing.T) {
	c, _ := atBarrier(t, "1", 0)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Empty(t, string(out))
}

func TestBarrierContainerFailsAfterItsBoundedWait(t *testing.T) {
	c, _ := atBarrier(t, "", time.Second)
	out, err := c.CombinedOutput()
	require.Error(t, err)
	assert.Equal(t, api.ExitWaited, c.ProcessState.ExitCode(), string(out))
	assert.Contains(t, string(out), "barrier warm=1: the pod has waited for as long as metaparticle.io/wait-at-most permits")
}

func TestStopSignalEndsTheBarrierContainer(t *testing.T) {
	c, reads := atBarrier(t, "", time.Hour)
	require.NoError(t, c.Start())
	<-reads
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
