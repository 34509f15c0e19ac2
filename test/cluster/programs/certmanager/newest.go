// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !oldest

package main

import (
	"context"
	"time"

	"github.com/cert-manager/cert-manager/pkg/controller"
)

func settings(_ context.Context, namespace string) controller.ContextOptions {
	return controller.ContextOptions{
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: namespace},
		CertificateOptions: controller.CertificateOptions{
			// The defaults of cert-manager's own command.
			CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
			CertificateRequestMinimumBackoffDuration: time.Hour,
			CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
		},
	}
}

func start(ctx context.Context, c controller.Interface) error { return c.Run(workers, ctx) }
