// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build oldest

package main

import (
	"context"

	"k8s.io/utils/clock"

	"github.com/cert-manager/cert-manager/pkg/controller"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/metrics"
)

func settings(ctx context.Context, namespace string) controller.ContextOptions {
	return controller.ContextOptions{
		KubernetesAPIQPS: 20, KubernetesAPIBurst: 50,
		Clock: clock.RealClock{}, Metrics: metrics.New(logf.FromContext(ctx), clock.RealClock{}),
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: namespace},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes: []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
		},
	}
}

func start(ctx context.Context, c controller.Interface) error { return c.Run(workers, ctx.Done()) }
