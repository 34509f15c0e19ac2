// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

// Start starts a component, unless the component runs already. Some components end immediately
// if the API server, or containerd, does not answer yet. So Start first waits for that server.
func Start(ctx context.Context, l *state.Lab, n state.Node, component string) error {
	if process.PID(l, n.Name, component) != 0 {
		return nil
	}
	var err error
	switch component {
	case "kcm", "scheduler", Metrics:
		err = AwaitAPIServer(ctx, l)
	case "kubelet":
		err = awaitRuntime(ctx, l, n)
	}
	if err != nil {
		return err
	}
	p := process.Process{Node: n.Name, Name: component, Within: n.Name, Command: Command(l, n, component)}
	if port := forwarded(l, component); port != nil {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", *port))
		if err != nil {
			return fmt.Errorf("open the way in: %w", err)
		}
		defer listener.Close()
		tcp := listener.(*net.TCPListener)
		*port = tcp.Addr().(*net.TCPAddr).Port
		file, err := tcp.File()
		if err != nil {
			return err
		}
		defer file.Close()
		p.Files = []*os.File{file}
	}
	return process.Start(ctx, l, p)
}

// forwarded returns a pointer to a forwarder's port on the host; nil for other
// components. The port is 0 before the first start, and never changes afterwards.
func forwarded(l *state.Lab, component string) *int {
	switch component {
	case "api-forward":
		return &l.Saved.APIPort
	case "registry-forward":
		return &l.Saved.RegistryPort
	}
	return nil
}

// awaitRuntime waits until containerd listens.
func awaitRuntime(ctx context.Context, l *state.Lab, n state.Node) error {
	socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", process.PID(l, n.Name, state.Holder))
	return wait.Poll(ctx, process.StartLimit, "containerd on "+n.Name, func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// AwaitAPIServer waits until the API server is ready.
func AwaitAPIServer(ctx context.Context, l *state.Lab) error {
	// The client need not check the certificate, because the port APIPort belongs to a forwarder
	// of this cluster. That forwarder connects only to this cluster's API server.
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	url := fmt.Sprintf("https://127.0.0.1:%d/readyz", l.Saved.APIPort)
	return wait.Poll(ctx, wait.ReadyLimit, "API server", func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}
