// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package worker starts the workers. At first a worker runs only its container runtime. Later the
// worker becomes a node of the cluster.
package worker

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/network"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

// Power starts the parts of a worker that need no API server: the Linux namespaces, the network
// and the container runtime.
func Power(ctx context.Context, l *state.Lab, n state.Node) error {
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	// A crash leaves the cgroups of the old kubelet's pods. These cgroups would delay the
	// new kubelet. A crash also leaves the address reservations of dead pods.
	if err := groups.Drop(ctx, l.NodeCgroup(n.Name)); err != nil {
		return err
	}
	if err := os.RemoveAll(l.Path(n.Name, "lib", "cni")); err != nil {
		return err
	}
	if err := groups.Make(l.NodeCgroup(n.Name) + "/system"); err != nil {
		return err
	}
	for _, dir := range []string{"lib/shared", "lib/containerd", "log", "cni"} {
		if err := os.MkdirAll(l.Path(n.Name, dir), 0o755); err != nil {
			return err
		}
	}
	v := config.Values(l, n)
	for name, file := range map[string]string{
		"cni.conflist": "cni/10-lab.conflist", "containerd.toml": "containerd.toml",
		"kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml",
	} {
		if err := config.RenderTo(l, l.Path(n.Name, file), name, v); err != nil {
			return err
		}
	}
	binds := []string{
		l.Path(n.Name, "lib") + ":/var/lib", l.Path(n.Name, "log") + ":/var/log", l.SharedDir() + ":" + state.SharedMount,
	}
	err = process.Start(ctx, l, process.Process{
		Node: n.Name, Name: state.Holder, Within: state.ControlPlane, Unshare: true,
		Command: []string{
			l.Path("bin", "holder"), "-hostname", n.Name, "-bind", strings.Join(binds, ","),
			"-shared", "/var/lib/kubelet", "-report", l.RecordFile(n.Name, state.Holder) + ".sock",
		},
	})
	if err != nil {
		return err
	}
	if err := network.Connect(ctx, l, n); err != nil {
		return err
	}
	return daemon.Start(ctx, l, n, "containerd")
}

// Serve starts a worker's kubelet and kube-proxy, so that the worker becomes a node.
func Serve(ctx context.Context, l *state.Lab, n state.Node) error {
	return errors.Join(daemon.Start(ctx, l, n, "kubelet"), daemon.Start(ctx, l, n, "proxy"))
}

// ServeAll starts the kubelets and kube-proxies of all workers.
func ServeAll(ctx context.Context, l *state.Lab) error {
	var jobs []func() error
	for _, name := range l.Nodes() {
		n, err := l.Node(name)
		if err != nil {
			return err
		}
		jobs = append(jobs, func() error { return Serve(ctx, l, n) })
	}
	return wait.Together(jobs...)
}

// AwaitReady waits until all workers are Ready nodes.
func AwaitReady(ctx context.Context, l *state.Lab) error {
	limit := "--timeout=" + wait.ReadyLimit.String()
	var nodes []string
	for _, name := range l.Nodes() {
		nodes = append(nodes, "node/"+name)
		// One kubectl command cannot wait for the creation of several objects.
		if err := kubectl.Run(ctx, l, nil, "wait", "--for=create", limit, "node/"+name); err != nil {
			return err
		}
	}
	return kubectl.Run(ctx, l, nil, append([]string{"wait", "--for=condition=Ready", limit}, nodes...)...)
}
