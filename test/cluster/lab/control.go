// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
)

// Components of the control plane and of a worker, in the order of their start.
var (
	controlComponents = []string{"etcd", "registry", "apiserver", "kcm", "scheduler", "api-forward", "registry-forward", metrics}
	workerComponents  = []string{"containerd", "kubelet", "proxy"}
)

// metrics is the component that only AddMetrics starts.
const metrics = "metrics"

// Components are the names that Kill and Start know on a node.
func Components(node string) []string {
	if node == ControlPlane {
		return slices.Clone(controlComponents)
	}
	return slices.Clone(workerComponents)
}

// components are those that this cluster has on a node.
func (c *Cluster) components(node string) []string {
	return slices.DeleteFunc(Components(node), func(name string) bool { return name == metrics && !c.state.Metrics })
}

// command is how a component is run.
func (c *Cluster) command(n node, component string) []string {
	switch component {
	case "etcd":
		return c.etcd()
	case "apiserver":
		return c.apiServer()
	case "kcm":
		return c.controllerManager()
	case "scheduler":
		conf := c.path("conf", "scheduler.conf")
		return []string{"kube-scheduler", "--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf,
			"--authorization-kubeconfig=" + conf, "--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"}
	case metrics:
		return c.metricsCommand()
	case "registry":
		return []string{c.path("bin", "registry"), RegistryInCluster, c.path("registry"),
			PrivateRegistry, PrivateUser, PrivatePassword}
	case "api-forward":
		return []string{c.path("bin", "forward"), controlAddress + ":6443"}
	case "registry-forward":
		return []string{c.path("bin", "forward"), RegistryInCluster}
	case "containerd":
		return []string{"containerd", "--config", c.path(n.Name, "containerd.toml"), "--log-level", "warn"}
	case "kubelet":
		return []string{"kubelet", featureGates, "--config", c.path(n.Name, "kubelet.yaml"), "--kubeconfig", c.path("conf", n.Name+".conf"),
			"--node-ip", n.address(), "--hostname-override", n.Name,
			// By default one. A container that is created and not started yet counts as
			// dead, and if the kubelet collects then, the last run's log is gone for good.
			"--maximum-dead-containers-per-container", "3"}
	case "proxy":
		return []string{"kube-proxy", "--config", c.path(n.Name, "proxy.yaml")}
	}
	return nil
}

func (c *Cluster) etcd() []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{"etcd", "--name=cp", "--data-dir=" + c.path("etcd"), "--log-level=warn",
		// A machine that goes down takes the whole cluster with it; a process that is killed loses nothing.
		"--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=cp=" + peer}
}

func (c *Cluster) apiServer() []string {
	pki := func(name string) string { return c.path("pki", name) }
	return []string{"kube-apiserver", featureGates,
		"--advertise-address=" + controlAddress, "--bind-address=0.0.0.0", "--secure-port=6443",
		"--etcd-servers=http://127.0.0.1:2379", "--service-cluster-ip-range=" + serviceNetwork,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--admission-control-config-file=" + c.admissionConfig(),
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
		// The control plane has no kube-proxy: webhooks are called at their pods' addresses.
		"--enable-aggregator-routing",
		"--audit-policy-file=" + c.auditPolicy(), "--audit-log-path=" + c.AuditLog(), "--audit-log-maxsize=100",
		"--profiling=false", "--event-ttl=1h"}
}

// admissionConfig limits the system's priority classes, as some clusters do.
func (c *Cluster) admissionConfig() string { return c.path("conf", "admission.yaml") }

func (c *Cluster) controllerManager() []string {
	conf := c.path("conf", "controller-manager.conf")
	return []string{"kube-controller-manager",
		"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
		"--root-ca-file=" + c.path("pki", "ca.crt"), "--use-service-account-credentials",
		"--service-account-private-key-file=" + c.path("pki", "sa.key"),
		"--cluster-signing-cert-file=" + c.path("pki", "ca.crt"), "--cluster-signing-key-file=" + c.path("pki", "ca.key"),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
		"--kube-api-qps=100", "--kube-api-burst=200",
		// See the kubelet's configuration: a node that fails is NotReady after 10 s.
		"--node-monitor-period=1s", "--node-monitor-grace-period=10s",
		// Half the time in which there are new metrics.
		"--horizontal-pod-autoscaler-sync-period=5s"}
}

// metricsCommand is of a process of the control plane and no pod: an aggregated API
// that went away with its node would disturb every client's discovery.
func (c *Cluster) metricsCommand() []string {
	conf := c.path("conf", "metrics.conf")
	return []string{"metrics-server",
		"--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf,
		"--bind-address=" + controlAddress, "--secure-port=" + metricsPort,
		// The API server's serves for this address, too: no key has to be made.
		"--tls-cert-file=" + c.path("pki", "apiserver.crt"), "--tls-private-key-file=" + c.path("pki", "apiserver.key"),
		// The kubelets sign their certificates themselves.
		"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port",
		// The shortest there is, and a kubelet that is cut off does not use it up.
		"--metric-resolution=10s", "--kubelet-request-timeout=5s"}
}

// startComponent starts a component unless it runs, once it can: these end at
// once, where what they need does not answer yet.
func (c *Cluster) startComponent(ctx context.Context, n node, component string) error {
	if c.pid(n.Name, component) != 0 {
		return nil
	}
	var err error
	switch component {
	case "kcm", "scheduler", metrics:
		err = c.AwaitAPIServer(ctx)
	case "kubelet":
		err = c.awaitRuntime(ctx, n)
	}
	if err != nil {
		return err
	}
	p := process{node: n.Name, name: component, within: n.Name, command: c.command(n, component)}
	if port := c.forwarded(component); port != nil {
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
		p.files = []*os.File{file}
	}
	return c.start(ctx, p)
}

// forwarded is where the host's port of a forwarder is noted: 0 before its
// first start, and the same ever after.
func (c *Cluster) forwarded(component string) *int {
	switch component {
	case "api-forward":
		return &c.state.APIPort
	case "registry-forward":
		return &c.state.RegistryPort
	}
	return nil
}

// issueCertificates makes the cluster's certificates and everybody's kubeconfig.
func (c *Cluster) issueCertificates(ctx context.Context) error {
	config := c.path("conf", "kubeadm.yaml")
	if err := c.renderTo(config, "kubeadm.yaml", c.values(node{})); err != nil {
		return err
	}
	if _, err := c.kubeadm(ctx, "init", "phase", "certs", "all", "--config", config); err != nil {
		return err
	}
	return nil
}

func (c *Cluster) issueKubeconfigs(ctx context.Context) error {
	config := c.path("conf", "kubeadm.yaml")
	var jobs []func() error
	for _, name := range []string{"admin", "super-admin", "controller-manager", "scheduler"} {
		jobs = append(jobs, func() error {
			_, err := c.kubeadm(ctx, "init", "phase", "kubeconfig", name, "--config", config, "--kubeconfig-dir", c.path("conf"))
			return err
		})
	}
	user := func(file string, args ...string) {
		jobs = append(jobs, func() error {
			out, err := c.kubeadm(ctx, append([]string{"kubeconfig", "user", "--config", config}, args...)...)
			if err != nil {
				return err
			}
			return os.WriteFile(c.path("conf", file), out, 0o600)
		})
	}
	user("proxy.conf", "--client-name", "system:kube-proxy")
	user("metrics.conf", "--client-name", "system:metrics-server")
	for _, name := range c.Nodes() {
		user(name+".conf", "--client-name", "system:node:"+name, "--org", "system:nodes")
	}
	return together(jobs...)
}

func (c *Cluster) kubeadm(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.path("bin", "kubeadm"), args...)
	cmd.Env = c.environment()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kubeadm %s: %w: %s", strings.Join(args[:3], " "), err, errs.String())
	}
	return out, nil
}

// together runs jobs at the same time and waits for all.
func together(jobs ...func() error) error {
	errs := make([]error, len(jobs))
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() { errs[i] = job() })
	}
	all.Wait()
	return errors.Join(errs...)
}
