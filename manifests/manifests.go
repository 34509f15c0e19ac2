// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package manifests embeds files of this folder, which describe an installation. The command
// "kubectl metaparticle check" compares the objects of a cluster with these files.
package manifests

import "embed"

// Policies has the files of the folder "policies", kustomization.yaml included.
//
//go:embed policies/*.yaml
var Policies embed.FS

// WebhookConfiguration has the two configurations by which the API server calls the webhook, the one for
// pods and workloads first.
//
//go:embed webhookconfiguration.yaml
var WebhookConfiguration []byte

// FlowControl has the objects of API Priority and Fairness.
//
//go:embed flowcontrol.yaml
var FlowControl []byte
