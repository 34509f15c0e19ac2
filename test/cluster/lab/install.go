// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// Kubectl is a command of the cluster's own kubectl, as administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.path("bin", "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	return cmd
}

// kubectl runs one, which has to succeed.
func (c *Cluster) kubectl(ctx context.Context, stdin []byte, args ...string) error {
	cmd := c.Kubectl(ctx, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// images are what the cluster's own pods run.
func (c *Cluster) images() map[string]func() (v1.Image, error) {
	static := func(file, as, user string) func() (v1.Image, error) {
		return func() (v1.Image, error) {
			// Not compressed: it never leaves this machine.
			return oci.Static(c.path("bin", file), as, oci.Config{User: user}, oci.Uncompressed)
		}
	}
	return map[string]func() (v1.Image, error){
		"pause:1":                   static("pause", "pause", "65535:65535"),
		"coredns:" + CoreDNSVersion: static("coredns", "coredns", ""),
		// cert-manager's chart wants its images to name a user that is not root.
		"cert-manager-controller:" + CertManagerVersion: static("controller", "controller", "1000"),
		"cert-manager-webhook:" + CertManagerVersion:    static("webhook", "webhook", "1000"),
		"cert-manager-cainjector:" + CertManagerVersion: static("cainjector", "cainjector", "1000"),
	}
}

// install pushes the images and applies the manifests of what runs in the cluster.
func (c *Cluster) install(ctx context.Context) error {
	coredns, err := render("coredns.yaml", c.values(node{}))
	if err != nil {
		return err
	}
	certManager, err := os.ReadFile(c.path("bin", "certmanager.yaml"))
	if err != nil {
		return err
	}
	if err := c.pushImages(ctx); err != nil {
		return err
	}
	namespace := []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: cert-manager}\n---\n")
	all := bytes.Join([][]byte{namespace, coredns, []byte("---"), certManager}, []byte("\n"))
	return c.kubectl(ctx, all, "apply", "--server-side", "--validate=false", "-f", "-")
}

// pushImages comes before the first pod: one whose image is not there yet
// tries again only after 10 s.
func (c *Cluster) pushImages(ctx context.Context) error {
	var jobs []func() error
	for name, build := range c.images() {
		jobs = append(jobs, func() error {
			image, err := build()
			if err != nil {
				return fmt.Errorf("make image %s: %w", name, err)
			}
			return oci.Push(ctx, c.Registry()+"/"+name, image)
		})
	}
	return together(jobs...)
}

// awaitInstalled waits until what was installed does its work: pods that are
// Ready are not yet a webhook that is trusted.
func (c *Cluster) awaitInstalled(ctx context.Context) error {
	limit := "--timeout=" + readyLimit.String()
	return together(
		func() error {
			return c.kubectl(ctx, nil, "-n", "kube-system", "rollout", "status", limit, "daemonset/coredns")
		},
		func() error {
			err := c.kubectl(ctx, nil, "-n", "cert-manager", "wait", "--for=condition=Available", limit, "deployment", "--all")
			if err != nil {
				return err
			}
			return c.probeCertManager(ctx, limit)
		},
	)
}

// probeCertManager has a certificate issued, which takes all three programs.
func (c *Cluster) probeCertManager(ctx context.Context, limit string) error {
	probe, err := render("certmanager-probe.yaml", c.values(node{}))
	if err != nil {
		return err
	}
	err = poll(ctx, readyLimit, "cert-manager's webhook", func() error {
		err := c.kubectl(ctx, probe, "apply", "--server-side", "-f", "-")
		if err != nil {
			pause(ctx, 200*time.Millisecond) // each try costs processor time
		}
		return err
	})
	if err != nil {
		return err
	}
	err = c.kubectl(ctx, nil, "-n", "cert-manager", "wait", "--for=condition=Ready", limit, "certificate/lab-probe")
	if err != nil {
		return err
	}
	return c.kubectl(ctx, nil, "-n", "cert-manager", "delete", "--wait=false",
		"certificate/lab-probe", "issuer/lab-probe", "secret/lab-probe")
}

// Push puts the image or index in a tarball (docker save's format or an OCI
// layout) into the registry under a name such as "demo/redis:1", and returns
// the reference for pods.
func (c *Cluster) Push(ctx context.Context, tarball, name string) (string, error) {
	if c.pid(ControlPlane, "registry") == 0 {
		return "", ErrDown
	}
	image, err := oci.Open(tarball)
	if err != nil {
		return "", err
	}
	if err := oci.Push(ctx, c.Registry()+"/"+name, image); err != nil {
		return "", err
	}
	return RegistryInCluster + "/" + name, nil
}
