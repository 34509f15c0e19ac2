// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// node is a worker, or with number 0 the control plane.
type node struct {
	Name   string
	number int
}

func (n node) address() string {
	if n.number == 0 {
		return controlAddress
	}
	return fmt.Sprintf("10.213.0.%d", 10+n.number)
}

func (n node) subnet() string { return fmt.Sprintf("10.214.%d.0/24", n.number) }

// values are what the templates may name.
type values struct {
	Dir, Name, Subnet, Cgroup, Runc                       string
	ControlAddress, Registry, Pods, Services, DNS         string
	MetricsPort                                           string
	KubernetesVersion, CertManagerVersion, CoreDNSVersion string
}

func (c *Cluster) values(n node) values {
	return values{
		Dir: c.dir, Name: n.Name, Subnet: n.subnet(), Cgroup: c.nodeCgroup(n.Name), Runc: c.path("bin", "runc"),
		ControlAddress: controlAddress, Registry: RegistryInCluster,
		Pods: podNetwork, Services: serviceNetwork, DNS: dnsAddress, MetricsPort: metricsPort,
		KubernetesVersion: KubernetesVersion, CertManagerVersion: CertManagerVersion, CoreDNSVersion: CoreDNSVersion,
	}
}

func render(name string, v values) ([]byte, error) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// renderTo renders a template to a file, with the directories it needs.
func (c *Cluster) renderTo(file, name string, v values) error {
	data, err := render(name, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// nodeCgroup holds a node's daemons (below, in "system") and its pods.
func (c *Cluster) nodeCgroup(name string) string { return c.cgroup() + "/" + name }

const holderName = "holder"

// enter is the command prefix that runs a program in all of a node's namespaces.
func (c *Cluster) enter(name string) ([]string, error) {
	pid := c.pid(name, holderName)
	if pid == 0 {
		if name == ControlPlane {
			return nil, ErrDown
		}
		return nil, fmt.Errorf("node %s is down", name)
	}
	return []string{"nsenter", "-t", fmt.Sprint(pid), "-m", "-p", "-n", "-u", "-i", "--"}, nil
}

// power starts a worker up to its container runtime: what needs no API server.
func (c *Cluster) power(ctx context.Context, n node) error {
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	// What a crash has left: pods of the old kubelet's cgroups, which delay the
	// new one, and address reservations of pods that are gone.
	if err := groups.drop(ctx, c.nodeCgroup(n.Name)); err != nil {
		return err
	}
	if err := os.RemoveAll(c.path(n.Name, "lib", "cni")); err != nil {
		return err
	}
	if err := groups.make(c.nodeCgroup(n.Name) + "/system"); err != nil {
		return err
	}
	for _, dir := range []string{"lib/shared", "lib/containerd", "log", "cni"} {
		if err := os.MkdirAll(c.path(n.Name, dir), 0o755); err != nil {
			return err
		}
	}
	v := c.values(n)
	for name, file := range map[string]string{
		"cni.conflist": "cni/10-lab.conflist", "containerd.toml": "containerd.toml",
		"kubelet.yaml": "kubelet.yaml", "proxy.yaml": "proxy.yaml",
	} {
		if err := c.renderTo(c.path(n.Name, file), name, v); err != nil {
			return err
		}
	}
	binds := []string{
		c.path(n.Name, "lib") + ":/var/lib", c.path(n.Name, "log") + ":/var/log", c.SharedDir() + ":" + SharedMount,
	}
	err = c.start(ctx, process{
		node: n.Name, name: holderName, within: ControlPlane, unshare: true,
		command: []string{
			c.path("bin", "holder"), "-hostname", n.Name, "-bind", strings.Join(binds, ","),
			"-shared", "/var/lib/kubelet", "-report", c.recordFile(n.Name, holderName) + ".sock",
		},
	})
	if err != nil {
		return err
	}
	if err := c.connect(ctx, n); err != nil {
		return err
	}
	return c.startComponent(ctx, n, "containerd")
}

// serve starts what makes a worker a node of the cluster.
func (c *Cluster) serve(ctx context.Context, n node) error {
	return errors.Join(c.startComponent(ctx, n, "kubelet"), c.startComponent(ctx, n, "proxy"))
}

// awaitRuntime waits until containerd listens.
func (c *Cluster) awaitRuntime(ctx context.Context, n node) error {
	socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", c.pid(n.Name, holderName))
	return poll(ctx, startLimit, "containerd on "+n.Name, func() error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Exec runs a command in a node's namespaces, as a login on that machine would.
func (c *Cluster) Exec(ctx context.Context, name string, stdin io.Reader, stdout, stderr io.Writer, command ...string) error {
	enter, err := c.enter(name)
	if err != nil {
		return err
	}
	words := append(enter, command...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(c.environment(), "TERM="+os.Getenv("TERM"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return cmd.Run()
}
