// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package addons installs the cluster's programs that run in pods: DNS and
// cert-manager.
package addons

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// images returns the functions that make the images of the cluster's own pods.
func images(l *state.Lab) map[string]func() (v1.Image, error) {
	static := func(file, as, user string) func() (v1.Image, error) {
		return func() (v1.Image, error) {
			// The image is not compressed, because it never leaves this machine.
			return oci.Static(l.Path("bin", file), as, oci.Config{User: user}, oci.Uncompressed)
		}
	}
	return map[string]func() (v1.Image, error){
		"pause:1":                         static("pause", "pause", "65535:65535"),
		"coredns:" + state.CoreDNSVersion: static("coredns", "coredns", ""),
		// cert-manager's chart requires images that name a user other than root.
		"cert-manager-controller:" + l.CertManager: static("certmanager", "controller", "1000"),
		"cert-manager-webhook:" + l.CertManager:    static("certmanager", "webhook", "1000"),
		"cert-manager-cainjector:" + l.CertManager: static("certmanager", "cainjector", "1000"),
	}
}

// Install pushes the images of cluster DNS and cert-manager and applies their manifests.
func Install(ctx context.Context, l *state.Lab) error {
	coredns, err := config.Render("coredns.yaml", config.Values(l, state.Node{}))
	if err != nil {
		return err
	}
	certManager, err := os.ReadFile(l.Path("bin", "certmanager.yaml"))
	if err != nil {
		return err
	}
	if err := pushImages(ctx, l); err != nil {
		return err
	}
	namespace := []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: cert-manager}\n---\n")
	all := bytes.Join([][]byte{namespace, coredns, []byte("---"), certManager}, []byte("\n"))
	return kubectl.Run(ctx, l, all, "apply", "--server-side", "--validate=false", "-f", "-")
}

// pushImages pushes all images before the first pod exists. A kubelet that does not find an
// image tries again only after 10 s.
func pushImages(ctx context.Context, l *state.Lab) error {
	var jobs []func() error
	for name, build := range images(l) {
		jobs = append(jobs, func() error {
			image, err := build()
			if err != nil {
				return fmt.Errorf("make image %s: %w", name, err)
			}
			return oci.Push(ctx, l.Registry()+"/"+name, image)
		})
	}
	return wait.Together(jobs...)
}

// AwaitInstalled waits until DNS and cert-manager work. Ready pods would not be enough,
// because the API server must also trust cert-manager's webhook.
func AwaitInstalled(ctx context.Context, l *state.Lab) error {
	limit := "--timeout=" + wait.ReadyLimit.String()
	return wait.Together(
		func() error {
			return kubectl.Run(ctx, l, nil, "-n", "kube-system", "rollout", "status", limit, "daemonset/coredns")
		},
		func() error {
			err := kubectl.Run(ctx, l, nil, "-n", "cert-manager", "wait", "--for=condition=Available", limit, "deployment", "--all")
			if err != nil {
				return err
			}
			return probeCertManager(ctx, l, limit)
		},
	)
}

// probeCertManager lets cert-manager issue a certificate. This step needs all three programs of
// cert-manager.
func probeCertManager(ctx context.Context, l *state.Lab, limit string) error {
	probe, err := config.Render("certmanager-probe.yaml", config.Values(l, state.Node{}))
	if err != nil {
		return err
	}
	err = wait.Poll(ctx, wait.ReadyLimit, "cert-manager's webhook", func() error {
		err := kubectl.Run(ctx, l, probe, "apply", "--server-side", "-f", "-")
		if err != nil {
			wait.Pause(ctx, 200*time.Millisecond) // each try costs processor time
		}
		return err
	})
	if err != nil {
		return err
	}
	err = kubectl.Run(ctx, l, nil, "-n", "cert-manager", "wait", "--for=condition=Ready", limit, "certificate/lab-probe")
	if err != nil {
		return err
	}
	return kubectl.Run(ctx, l, nil, "-n", "cert-manager", "delete", "--wait=false",
		"certificate/lab-probe", "issuer/lab-probe", "secret/lab-probe")
}
