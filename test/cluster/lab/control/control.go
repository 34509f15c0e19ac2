// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package control starts the control plane: its node, certificates, kubeconfigs and
// components.
package control

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/network"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/worker"
)

// Start starts etcd, the registry and the API server. Together with the API server, Start
// starts those parts of each worker that need no API server, such as the container runtime.
func Start(ctx context.Context, l *state.Lab) error {
	if err := os.RemoveAll(l.Path("log")); err != nil {
		return err
	}
	for _, dir := range []string{"log", "run", "conf", "pki", "registry", "shared"} {
		if err := os.MkdirAll(l.Path(dir), 0o755); err != nil {
			return err
		}
	}
	// Pods may run as any user, and write into this directory.
	if err := os.Chmod(l.SharedDir(), 0o777); err != nil {
		return err
	}
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := groups.Make(l.NodeCgroup(state.ControlPlane) + "/system"); err != nil {
		return err
	}
	// Without processor time for seconds the API server answers nothing, and holders rightly stop.
	for name, times := range map[string]int{l.Cgroup(): 8, l.NodeCgroup(state.ControlPlane): 4} {
		if err := groups.Weigh(name, times); err != nil {
			return err
		}
	}
	err = process.Start(ctx, l, process.Process{Node: state.ControlPlane, Name: state.Holder, Unshare: true, Command: []string{
		l.Path("bin", "holder"), "-hostname", state.ControlPlane, "-report", l.RecordFile(state.ControlPlane, state.Holder) + ".sock",
	}})
	if err != nil {
		return err
	}
	if err := network.Bridge(ctx, l); err != nil {
		return err
	}
	cp := state.Node{Name: state.ControlPlane}
	if err := config.RenderTo(l, l.AuditPolicy(), "audit.yaml", config.Values(l, cp)); err != nil {
		return err
	}
	if err := config.RenderTo(l, l.AdmissionConfig(), "admission.yaml", config.Values(l, cp)); err != nil {
		return err
	}
	for _, name := range []string{"etcd", "registry", "api-forward", "registry-forward"} {
		if err := daemon.Start(ctx, l, cp, name); err != nil {
			return err
		}
	}
	if err := l.Save(); err != nil {
		return err
	}
	if err := issueCertificates(ctx, l); err != nil {
		return err
	}
	jobs := []func() error{
		func() error { return daemon.Start(ctx, l, cp, "apiserver") },
		func() error { return issueKubeconfigs(ctx, l) },
		func() error { return allowPlainHTTP(l, cp, state.RegistryInCluster, state.PrivateRegistry) },
		func() error { return MirrorOthers(l) },
	}
	for _, name := range l.Nodes() {
		n, err := l.Node(name)
		if err != nil {
			return err
		}
		jobs = append(jobs, func() error { return worker.Power(ctx, l, n) })
	}
	if err := wait.Together(jobs...); err != nil {
		return err
	}
	return writeKubeconfig(l)
}

// allowPlainHTTP makes the nodes' containerd use registries without TLS.
func allowPlainHTTP(l *state.Lab, cp state.Node, registries ...string) error {
	for _, registry := range registries {
		values := config.Values(l, cp)
		values.Registry = registry
		if err := config.RenderTo(l, l.Path("conf", "certs.d", registry, "hosts.toml"), "hosts.toml", values); err != nil {
			return err
		}
	}
	return nil
}

// MirrorOthers writes a file that the nodes' containerd reads at each pull. With this file
// containerd pulls from the cluster's registry first, whichever registry an image's name contains.
// The nodes cannot reach the internet.
func MirrorOthers(l *state.Lab) error {
	cp, err := l.Node(state.ControlPlane)
	if err != nil {
		return err
	}
	return config.RenderTo(l, l.Path("conf", "certs.d", "_default", "hosts.toml"), "mirror.toml", config.Values(l, cp))
}

// writeKubeconfig makes the administrator's kubeconfig usable from the host.
func writeKubeconfig(l *state.Lab) error {
	conf, err := os.ReadFile(l.Path("conf", "admin.conf"))
	if err != nil {
		return err
	}
	inner, outer := "https://"+state.ControlAddress+":6443", fmt.Sprintf("https://127.0.0.1:%d", l.Saved.APIPort)
	return os.WriteFile(l.Kubeconfig(), []byte(strings.ReplaceAll(string(conf), inner, outer)), 0o600)
}

// StartControllers starts the rest of the control plane, and binds the rights that
// kubeadm binds in its later phases.
func StartControllers(ctx context.Context, l *state.Lab) error {
	cp := state.Node{Name: state.ControlPlane}
	return wait.Together(
		func() error { return daemon.Start(ctx, l, cp, "kcm") },
		func() error { return daemon.Start(ctx, l, cp, "scheduler") },
		func() error {
			manifest, err := config.Render("rbac.yaml", config.Values(l, cp))
			if err != nil {
				return err
			}
			// The administrator has no rights without the bindings in rbac.yaml, so the account
			// super-admin creates these bindings.
			return kubectl.Run(ctx, l, manifest, "--kubeconfig", l.Path("conf", "super-admin.conf"),
				"--server", fmt.Sprintf("https://127.0.0.1:%d", l.Saved.APIPort), "create", "--validate=false", "-f", "-")
		},
	)
}

// issueCertificates makes the cluster's certificates.
func issueCertificates(ctx context.Context, l *state.Lab) error {
	file := l.Path("conf", "kubeadm.yaml")
	if err := config.RenderTo(l, file, "kubeadm.yaml", config.Values(l, state.Node{})); err != nil {
		return err
	}
	if _, err := kubeadm(ctx, l, "init", "phase", "certs", "all", "--config", file); err != nil {
		return err
	}
	return nil
}

// issueKubeconfigs makes the kubeconfigs of the administrator and of each component.
func issueKubeconfigs(ctx context.Context, l *state.Lab) error {
	file := l.Path("conf", "kubeadm.yaml")
	var jobs []func() error
	for _, name := range []string{"admin", "super-admin", "controller-manager", "scheduler"} {
		jobs = append(jobs, func() error {
			_, err := kubeadm(ctx, l, "init", "phase", "kubeconfig", name, "--config", file, "--kubeconfig-dir", l.Path("conf"))
			return err
		})
	}
	user := func(name string, args ...string) {
		jobs = append(jobs, func() error {
			out, err := kubeadm(ctx, l, append([]string{"kubeconfig", "user", "--config", file}, args...)...)
			if err != nil {
				return err
			}
			return os.WriteFile(l.Path("conf", name), out, 0o600)
		})
	}
	user("proxy.conf", "--client-name", "system:kube-proxy")
	user("metrics.conf", "--client-name", "system:metrics-server")
	for _, name := range l.Nodes() {
		user(name+".conf", "--client-name", "system:node:"+name, "--org", "system:nodes")
	}
	return wait.Together(jobs...)
}

// kubeadm runs kubeadm and returns its output.
func kubeadm(ctx context.Context, l *state.Lab, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, l.Path("bin", "kubeadm"), args...)
	cmd.Env = l.Environment()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("kubeadm %s: %w: %s", strings.Join(args[:3], " "), err, errs.String())
	}
	return out, nil
}
