// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// readyLimit bounds each wait for something to become ready on a machine that
// is busy with something else; each takes seconds.
const readyLimit = 2 * time.Minute

// Up brings the cluster up, from source where needed, and returns when
// everything in it works. A cluster that is up is left alone.
func (c *Cluster) Up(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.load(); err != nil {
		return err
	}
	if c.pid(ControlPlane, holderName) != 0 && c.complete() {
		c.say("the cluster is up already")
		return nil
	}
	if err := c.ensurePackages(ctx); err != nil {
		return err
	}
	// What an interrupted start, or a machine that went down, has left.
	if err := c.clear(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("bin"), 0o755); err != nil {
		return err
	}
	if err := c.build(ctx, programs()); err != nil {
		return err
	}
	c.began = time.Now()
	c.say("binaries are built")
	if err := c.bringUp(ctx); err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, c.path("log"))
	}
	return nil
}

func (c *Cluster) bringUp(ctx context.Context) error {
	c.state = state{Workers: c.Workers, Kubernetes: KubernetesVersion}
	if c.state.Workers == 0 {
		c.state.Workers = defaultWorkers
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"control plane started", c.startControlPlane},
		{"API server ready", c.AwaitAPIServer},
		{"controllers started", c.startControllers},
		{"nodes started", c.startNodes},
		{"nodes Ready", c.awaitNodes},
		{"cluster DNS and cert-manager installed", c.install},
		{"cluster DNS answers, cert-manager issues", c.awaitInstalled},
	} {
		if err := step.do(ctx); err != nil {
			return err
		}
		c.say("%s", step.name)
	}
	return c.finish()
}

// lockState lets one Up or Down at a time work on the state directory.
func (c *Cluster) lockState(ctx context.Context) (func(), error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	return lock(ctx, c.path("lock"), func() { c.say("another process is at work on this cluster, waiting") })
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := os.RemoveAll(c.path("log")); err != nil {
		return err
	}
	for _, dir := range []string{"log", "run", "conf", "pki", "registry", "shared"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return err
		}
	}
	// Pods of any user write there.
	if err := os.Chmod(c.SharedDir(), 0o777); err != nil {
		return err
	}
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	if err := groups.make(c.nodeCgroup(ControlPlane) + "/system"); err != nil {
		return err
	}
	err = c.start(ctx, process{node: ControlPlane, name: holderName, unshare: true, command: []string{
		c.path("bin", "holder"), "-hostname", ControlPlane, "-report", c.recordFile(ControlPlane, holderName) + ".sock",
	}})
	if err != nil {
		return err
	}
	if err := c.makeBridge(ctx); err != nil {
		return err
	}
	cp := node{Name: ControlPlane}
	if err := c.renderTo(c.auditPolicy(), "audit.yaml", c.values(cp)); err != nil {
		return err
	}
	if err := c.renderTo(c.admissionConfig(), "admission.yaml", c.values(cp)); err != nil {
		return err
	}
	for _, name := range []string{"etcd", "registry", "api-forward", "registry-forward"} {
		if err := c.startComponent(ctx, cp, name); err != nil {
			return err
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := c.issueCertificates(ctx); err != nil {
		return err
	}
	jobs := []func() error{
		func() error { return c.startComponent(ctx, cp, "apiserver") },
		func() error { return c.issueKubeconfigs(ctx) },
		func() error { return c.allowPlainHTTP(cp, RegistryInCluster, PrivateRegistry) },
	}
	for _, name := range c.Nodes() {
		n, err := c.node(name)
		if err != nil {
			return err
		}
		jobs = append(jobs, func() error { return c.power(ctx, n) })
	}
	if err := together(jobs...); err != nil {
		return err
	}
	return c.writeKubeconfig()
}

// allowPlainHTTP tells the nodes' containerd of registries without TLS.
func (c *Cluster) allowPlainHTTP(cp node, registries ...string) error {
	for _, registry := range registries {
		values := c.values(cp)
		values.Registry = registry
		if err := c.renderTo(c.path("conf", "certs.d", registry, "hosts.toml"), "hosts.toml", values); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig makes the administrator's kubeconfig usable from the host.
func (c *Cluster) writeKubeconfig() error {
	conf, err := os.ReadFile(c.path("conf", "admin.conf"))
	if err != nil {
		return err
	}
	inner, outer := "https://"+controlAddress+":6443", fmt.Sprintf("https://127.0.0.1:%d", c.state.APIPort)
	return os.WriteFile(c.Kubeconfig(), []byte(strings.ReplaceAll(string(conf), inner, outer)), 0o600)
}

// AwaitAPIServer waits until the API server is ready.
func (c *Cluster) AwaitAPIServer(ctx context.Context) error {
	// Who answers on this port is known: we opened it.
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	url := fmt.Sprintf("https://127.0.0.1:%d/readyz", c.state.APIPort)
	return poll(ctx, readyLimit, "API server", func() error {
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

// startControllers starts the rest of the control plane, and binds the rights
// that kubeadm would have.
func (c *Cluster) startControllers(ctx context.Context) error {
	cp := node{Name: ControlPlane}
	return together(
		func() error { return c.startComponent(ctx, cp, "kcm") },
		func() error { return c.startComponent(ctx, cp, "scheduler") },
		func() error {
			manifest, err := render("rbac.yaml", c.values(cp))
			if err != nil {
				return err
			}
			// The administrator's own rights are among these, so somebody else must bind them.
			return c.kubectl(ctx, manifest, "--kubeconfig", c.path("conf", "super-admin.conf"),
				"--server", fmt.Sprintf("https://127.0.0.1:%d", c.state.APIPort), "create", "--validate=false", "-f", "-")
		},
	)
}

func (c *Cluster) startNodes(ctx context.Context) error {
	var jobs []func() error
	for _, name := range c.Nodes() {
		n, err := c.node(name)
		if err != nil {
			return err
		}
		jobs = append(jobs, func() error { return c.serve(ctx, n) })
	}
	return together(jobs...)
}

func (c *Cluster) awaitNodes(ctx context.Context) error {
	limit := "--timeout=" + readyLimit.String()
	var nodes []string
	for _, name := range c.Nodes() {
		nodes = append(nodes, "node/"+name)
		// One at a time: kubectl does not wait for the creation of several.
		if err := c.kubectl(ctx, nil, "wait", "--for=create", limit, "node/"+name); err != nil {
			return err
		}
	}
	return c.kubectl(ctx, nil, append([]string{"wait", "--for=condition=Ready", limit}, nodes...)...)
}

// complete tells whether an Up came to its end.
func (c *Cluster) complete() bool {
	_, err := os.Stat(c.path("env"))
	return err == nil
}

// finish writes what scripts read.
func (c *Cluster) finish() error {
	env := fmt.Sprintf(`export KUBECONFIG=%q
export METAPARTICLE_REGISTRY=%q
export METAPARTICLE_REGISTRY_IN_CLUSTER=%q
export METAPARTICLE_SHARED=%q
export METAPARTICLE_NODES=%q
export METAPARTICLE_KUBECTL=%q
`, c.Kubeconfig(), c.Registry(), RegistryInCluster, c.SharedDir(), strings.Join(c.Nodes(), " "), c.path("bin", "kubectl"))
	return os.WriteFile(c.path("env"), []byte(env), 0o644)
}
