// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

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
