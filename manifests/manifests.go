// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package manifests has the objects of an installation, as the folder has them. The command
// "kubectl metaparticle check" compares those of a cluster with them.
package manifests

import "embed"

// Policies are the files of the folder policies. Its kustomization is among them.
//
//go:embed policies/*.yaml
var Policies embed.FS

// WebhookConfiguration is the configuration by which the API server calls the webhook.
//
//go:embed webhookconfiguration.yaml
var WebhookConfiguration []byte
