// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package daemon describes the components of each node, from etcd to kube-proxy: their command
// lines, and the servers for which their start waits.
package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
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

// These are the components of the control plane and of a worker.
var (
	controlComponents = []string{"etcd", "registry", "apiserver", "kcm", "scheduler", "api-forward", "registry-forward", Metrics}
	workerComponents  = []string{"containerd", "kubelet", "proxy"}
)

// Metrics is the component metrics-server. A cluster has this component only after AddMetrics of
// package lab.
const Metrics = "metrics"

// Components returns the names of all components that a node can have.
func Components(node string) []string {
	if node == state.ControlPlane {
		return slices.Clone(controlComponents)
	}
	return slices.Clone(workerComponents)
}

// Of returns the components that this cluster has on a node.
func Of(l *state.Lab, node string) []string {
	return slices.DeleteFunc(Components(node), func(name string) bool { return name == Metrics && !l.Saved.Metrics })
}

// Command returns the command line of a component.
func Command(l *state.Lab, n state.Node, component string) []string {
	switch component {
	case "etcd":
		return etcd(l)
	case "apiserver":
		return apiServer(l)
	case "kcm":
		return controllerManager(l)
	case "scheduler":
		conf := l.Path("conf", "scheduler.conf")
		return []string{"kube-scheduler", "--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf,
			"--authorization-kubeconfig=" + conf, "--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"}
	case Metrics:
		return metricsCommand(l)
	case "registry":
		return []string{l.Path("bin", "registry"), state.RegistryInCluster, l.Path("registry"),
			state.PrivateRegistry, state.PrivateUser, state.PrivatePassword}
	case "api-forward":
		return []string{l.Path("bin", "forward"), state.ControlAddress + ":6443"}
	case "registry-forward":
		return []string{l.Path("bin", "forward"), state.RegistryInCluster}
	case "containerd":
		return []string{"containerd", "--config", l.Path(n.Name, "containerd.toml"), "--log-level", "warn"}
	case "kubelet":
		return []string{"kubelet", state.FeatureGates, "--config", l.Path(n.Name, "kubelet.yaml"), "--kubeconfig", l.Path("conf", n.Name+".conf"),
			"--node-ip", n.Address(), "--hostname-override", n.Name,
			// By default the kubelet keeps one dead container. A container that is created but not
			// started also counts as dead. So the kubelet might remove the container that ran last,
			// with its log.
			"--maximum-dead-containers-per-container", "3"}
	case "proxy":
		return []string{"kube-proxy", "--config", l.Path(n.Name, "proxy.yaml")}
	}
	return nil
}

func etcd(l *state.Lab) []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{"etcd", "--name=cp", "--data-dir=" + l.Path("etcd"), "--log-level=warn",
		// Without fsync only a crash of the machine loses data, and that crash also ends
		// the whole cluster.
		"--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=cp=" + peer}
}

func apiServer(l *state.Lab) []string {
	pki := func(name string) string { return l.Path("pki", name) }
	return []string{"kube-apiserver", state.FeatureGates,
		"--advertise-address=" + state.ControlAddress, "--bind-address=0.0.0.0", "--secure-port=6443",
		"--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=" + state.ServiceNetwork,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--admission-control-config-file=" + l.AdmissionConfig(),
		"--client-ca-file=" + pki("ca.crt"),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--requestheader-client-ca-file=" + pki("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + pki("front-proxy-client.key"),
		// The control plane has no kube-proxy, so the API server calls webhooks at their pods'
		// addresses.
		"--enable-aggregator-routing",
		"--audit-policy-file=" + l.AuditPolicy(), "--audit-log-path=" + l.AuditLog(), "--audit-log-maxsize=100",
		"--profiling=false", "--event-ttl=1h"}
}

func controllerManager(l *state.Lab) []string {
	conf := l.Path("conf", "controller-manager.conf")
	return []string{"kube-controller-manager",
		"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
		"--root-ca-file=" + l.Path("pki", "ca.crt"), "--use-service-account-credentials",
		"--service-account-private-key-file=" + l.Path("pki", "sa.key"),
		"--cluster-signing-cert-file=" + l.Path("pki", "ca.crt"), "--cluster-signing-key-file=" + l.Path("pki", "ca.key"),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
		"--kube-api-qps=100", "--kube-api-burst=200",
		// A failed node is NotReady after 10 s (see the kubelet's configuration).
		"--node-monitor-period=1s", "--node-monitor-grace-period=10s",
		// metrics-server measures every 10 s (metricsCommand). With this period, the autoscaler
		// reads each new figure after at most 5 s.
		"--horizontal-pod-autoscaler-sync-period=5s"}
}

// metricsCommand returns the command of metrics-server, which runs beside the control
// plane and in no pod. If metrics-server ran in a pod, a crash of the pod's node
// would end the aggregated API. This would disturb the discovery of every client.
func metricsCommand(l *state.Lab) []string {
	conf := l.Path("conf", "metrics.conf")
	return []string{"metrics-server",
		"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
		"--bind-address=" + state.ControlAddress, "--secure-port=" + state.MetricsPort,
		// The API server's certificate is also valid for the bind address of metrics-server, so
		// metrics-server needs no certificate of its own.
		"--tls-cert-file=" + l.Path("pki", "apiserver.crt"), "--tls-private-key-file=" + l.Path("pki", "apiserver.key"),
		// The kubelets sign their certificates themselves.
		"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port",
		// metrics-server accepts no resolution below 10 s. If a kubelet is cut off, a request to
		// this kubelet ends after half of the resolution.
		"--metric-resolution=10s", "--kubelet-request-timeout=5s"}
}
